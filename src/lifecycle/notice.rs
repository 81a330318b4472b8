//! E-mails and alerts, and the names under which they are written down as sent.

use crate::api::usage::Reached;
use crate::api::{LinkKind, MailRequest, Timestamp, Unit};

/// An e-mail or alert, sent once.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Notice {
    /// To the customer: a link that they asked for, or that their signup needs.
    Link(MailRequest),
    /// To the customer: the account is ready.
    Welcome,
    /// To the customer: the agreement on the processing of their data.
    DataProcessingAgreement,
    /// To the customer: how to ask the first question.
    FirstQuestion,
    /// To the customer: the setup is complete.
    Congratulation,
    /// To the customer: a payment failed, which is late since then.
    PaymentFailed(Timestamp),
    /// To the customer: it is still late, and half of the grace period is over.
    PaymentReminder(Timestamp),
    /// To the customer: the account is suspended, since then.
    Suspended(Timestamp),
    /// To the customer: another plan is in force, since then.
    PlanChanged(Timestamp),
    /// To the customer: another plan will be in force, as was scheduled then.
    PlanScheduled(Timestamp),
    /// To the customer: another plan was declined then.
    PlanDeclined(Timestamp),
    /// To the customer: another plan waits since then until they confirm its payment.
    PlanUnconfirmed(Timestamp),
    /// To the customer: so many percent of these limits are used, which were not told before.
    UsageReached {
        /// 80 or 100.
        percent: u8,
        /// The limits.
        what: Vec<Reached>,
    },
    /// To the customer: the account is closed, since then, and erased later.
    DeletionRequested(Timestamp),
    /// To the address before: it was changed, by the change that this names.
    AddressChanged(String),
    /// To the customer: the export that they asked for by this name is complete.
    ExportReady(String),
    /// To the customer who has left: an offer to come back, once.
    WinBack,
    /// To the customer: everything is erased.
    Erased,
    /// To the platform team: the welcome e-mail cannot be sent.
    WelcomeFailedAlert,
    /// To the platform team: the object of a customer was deleted, and the customer was not erased.
    KeptAlert,
    /// To the platform team: provisioning failed, in the run that this token names.
    FailedAlert(String),
    /// To the customer: provisioning failed, in the run that this token names.
    FailedMail(String),
    /// To the platform team: the customer disputes a payment, or has won that, as this names.
    DisputeAlert(String),
    /// To the platform team: Stripe bills this price, which is another plan's.
    PriceAlert(String),
    /// To the platform team: the tenant is closed, and Stripe renews this subscription.
    RenewedAlert(String),
    /// To the platform team: the tenant is open, and Stripe ends this subscription because the tenant was closed.
    EndsAlert(String),
    /// To the platform team: Stripe bills these subscriptions beside the tenant's own.
    SurplusAlert(String),
    /// To the platform team: paid, and still not Active after the normal time, in the run that this token names.
    SlowAlert(String),
    /// To the platform team: the object names another namespace than the one with the documents, or several hold
    /// documents, as this names.
    DataAlert(String),
    /// To the platform team: the tenant's namespace is gone, in the run that this token names.
    NamespaceMissingAlert(String),
}

impl Notice {
    /// The name under which it is written down as sent.
    pub fn key(&self) -> String {
        match self {
            Self::Link(request) => request.to_string(),
            Self::Welcome => "welcome".into(),
            Self::DataProcessingAgreement => "data-processing-agreement".into(),
            Self::FirstQuestion => "first-question".into(),
            Self::Congratulation => "congratulation".into(),
            Self::PaymentFailed(since) => format!("payment-failed.{}", since.as_second()),
            Self::PaymentReminder(since) => format!("payment-reminder.{}", since.as_second()),
            Self::Suspended(since) => format!("suspended.{}", since.as_second()),
            Self::PlanChanged(since) => format!("plan-changed.{}", since.as_second()),
            Self::PlanScheduled(since) => format!("plan-scheduled.{}", since.as_second()),
            Self::PlanUnconfirmed(since) => format!("plan-unconfirmed.{}", since.as_second()),
            Self::PlanDeclined(since) => format!("plan-declined.{}", since.as_second()),
            Self::UsageReached { percent, what } => {
                let parts: Vec<_> = what.iter().map(limit_key).collect();
                format!("{}.{}", usage_kind(*percent), parts.join("."))
            }
            Self::DeletionRequested(since) => format!("deletion-requested.{}", since.as_second()),
            Self::AddressChanged(change) => format!("address-changed.{change}"),
            Self::ExportReady(request) => format!("export-ready.{request}"),
            Self::WinBack => "win-back".into(),
            Self::Erased => "erased".into(),
            Self::KeptAlert => "kept-alert".into(),
            Self::WelcomeFailedAlert => "welcome-failed-alert".into(),
            Self::FailedAlert(run) => format!("failed-alert.{run}"),
            Self::FailedMail(run) => format!("failed-mail.{run}"),
            Self::DisputeAlert(what) => format!("dispute-alert.{what}"),
            Self::PriceAlert(price) => format!("price-alert.{price}"),
            Self::RenewedAlert(id) => format!("renewed-alert.{id}"),
            Self::EndsAlert(id) => format!("ends-alert.{id}"),
            Self::SurplusAlert(ids) => format!("surplus-alert.{ids}"),
            Self::SlowAlert(run) => format!("slow-alert.{run}"),
            Self::DataAlert(what) => format!("data-alert.{what}"),
            Self::NamespaceMissingAlert(run) => format!("namespace-missing-alert.{run}"),
        }
    }

    /// Whether an earlier one of this key need not be remembered once this was sent: a customer may ask for any number
    /// of links, pay late and change plans any number of times.
    pub fn supersedes(&self, key: &str) -> bool {
        let kind = |key: &str| key.split('.').next().unwrap_or_default().to_owned();
        match self {
            Self::UsageReached { what, .. } => {
                kind(&self.key()) == kind(key) && parts(key).all(|part| what.iter().any(|later| outdates(later, part)))
            }
            Self::Link(_)
            | Self::PaymentFailed(_)
            | Self::PaymentReminder(_)
            | Self::Suspended(_)
            | Self::PlanChanged(_)
            | Self::PlanScheduled(_)
            | Self::PlanDeclined(_)
            | Self::PlanUnconfirmed(_)
            | Self::AddressChanged(_)
            | Self::ExportReady(_)
            | Self::DisputeAlert(_)
            | Self::DataAlert(_)
            | Self::PriceAlert(_)
            | Self::RenewedAlert(_)
            | Self::EndsAlert(_)
            | Self::SurplusAlert(_)
            | Self::DeletionRequested(_) => kind(&self.key()) == kind(key),
            _ => false,
        }
    }
}

impl Notice {
    /// The kinds of notices that are sent only to tenants that are or were served, and to the platform team about them.
    const FOLLOW_SERVICE: [&str; 14] = [
        "welcome",
        "welcome-failed-alert",
        "data-processing-agreement",
        "first-question",
        "congratulation",
        "payment-failed",
        "payment-reminder",
        "plan-changed",
        "plan-scheduled",
        "plan-declined",
        "export-ready",
        "usage-80",
        "usage-100",
        "namespace-missing-alert",
    ];

    /// Whether a notice of this key is sent only once a tenant was served.
    pub fn follows_service(key: &str) -> bool {
        key.split('.').next().is_some_and(|kind| Self::FOLLOW_SERVICE.contains(&kind))
    }
}

/// Whether a notice of this key is a link of this kind.
pub(super) fn is_link(key: &str, kind: LinkKind) -> bool {
    key.split('.').next() == Some(kind.name())
}

/// How notices about a share of a limit are written down: their kind, and a part for each limit.
fn usage_kind(percent: u8) -> String {
    format!("usage-{percent}")
}

fn limit_key(reached: &Reached) -> String {
    format!("{}-{}-{}", reached.unit.name(), reached.limit, reached.period_start.as_second())
}

fn parts(key: &str) -> impl Iterator<Item = &str> {
    key.split('.').skip(1)
}

/// Whether the customer has had an e-mail about this limit, alone or together with others.
pub(super) fn told<'a>(sent: impl IntoIterator<Item = &'a String>, reached: &Reached) -> bool {
    let (kind, part) = (usage_kind(reached.percent), limit_key(reached));
    sent.into_iter().any(|key| key.split('.').next() == Some(&kind) && parts(key).any(|told| told == part))
}

/// Whether that part of an earlier key says nothing any more once this was told: it is of the same unit, or of an
/// earlier period. A level stays told beyond its period, for as long as it stays high.
fn outdates(later: &Reached, part: &str) -> bool {
    let mut fields = part.split('-');
    let Some(unit) = fields.next().and_then(|unit| unit.parse::<Unit>().ok()) else { return true };
    let period = fields.nth(1).and_then(|start| start.parse().ok()).unwrap_or(i64::MIN);
    unit == later.unit || (!unit.is_level() && period < later.period_start.as_second())
}
