//! E-mails to the customer and alerts to the platform team.

use serde_json::json;

use super::usage_mail;
use crate::api::facts::SuspendedFor;
use crate::api::plan::Money;
use crate::api::status::ErasureLine;
use crate::api::{
    EMAIL_LABEL, LinkKind, MailRequest, Plan, SAMPLE_QUESTION, SENT_ANNOTATION, Tenant, TenantStatus, Timestamp,
    VERIFIED_ANNOTATION, conditions, time_to_activate,
};
use crate::controller::kubernetes::Kubernetes;
use crate::lifecycle::{Notice, Outcome, Provider, failed_unconfirmed, suspended_for};
use crate::operator_keys::IdentityKey;
use crate::providers::ProviderError;
use crate::providers::alerts::Alerts;
use crate::providers::mail::{Letter, Mail, Template, Values};

/// What sends, and what signs the links in it.
#[derive(Clone, Copy)]
pub struct Senders<'a> {
    pub mail: &'a Mail,
    pub alerts: &'a Alerts,
    pub identity: &'a IdentityKey,
    /// The present by the API server's clock, by which web judges how old a link is.
    pub now: Timestamp,
}

/// The plans that a notice names.
#[derive(Clone, Copy)]
pub struct Plans<'a> {
    pub in_force: Option<&'a Plan>,
    /// The one in the spec.
    pub wanted: Option<&'a Plan>,
}

pub async fn send(
    senders: Senders<'_>,
    tenant: &Tenant,
    plans: Plans<'_>,
    notice: &Notice,
) -> Result<Outcome, ProviderError> {
    let Senders { mail, alerts, .. } = senders;
    if *notice == Notice::KeptAlert {
        return kept(alerts, tenant, 1).await;
    }
    let Some((template, own)) = letter(senders, tenant, plans, notice) else {
        return alert(alerts, &alert_text(tenant, notice)).await;
    };
    let values = about(tenant, plans, notice, own);
    let changed = matches!(notice, Notice::AddressChanged(_));
    let before = tenant.status.as_ref().and_then(|status| status.admin_email.as_ref()).filter(|_| changed);
    let to = before.unwrap_or(&tenant.spec.admin_email);
    mail.send(&Letter { template, to, key: &notice.key(), values }).await?;
    Ok(Outcome::Done)
}

/// The template of an e-mail, and what it alone says. None of an alert.
fn letter(
    Senders { mail, identity, now, .. }: Senders<'_>,
    tenant: &Tenant,
    plans: Plans<'_>,
    notice: &Notice,
) -> Option<(Template, Values)> {
    let status = tenant.status.clone().unwrap_or_default();
    let account = || Values { path: "/account".into(), ..Values::default() };
    Some(match notice {
        Notice::Link(request) => link(identity, tenant, *request),
        Notice::Welcome => (Template::Welcome, way_in(mail, identity, tenant, now)),
        Notice::FailedMail(_) if failed_unconfirmed(&status) => {
            (Template::Unverified, Values { refund: refunded(tenant), path: "/login".into(), ..Values::default() })
        }
        Notice::FailedMail(_) => {
            (Template::ProvisioningFailed, Values { refund: refunded(tenant), ..Values::default() })
        }
        Notice::DataProcessingAgreement => (Template::DataProcessingAgreement, Values::default()),
        Notice::FirstQuestion => {
            (Template::FirstQuestion, Values { unsubscribe: identity.unsubscribe_link(tenant), ..account() })
        }
        Notice::Congratulation => {
            let unsubscribe = identity.unsubscribe_link(tenant);
            let time_to_activate = time_to_activate(tenant).map(words).unwrap_or_default();
            (Template::Congratulation, Values { unsubscribe, time_to_activate, ..account() })
        }
        Notice::PaymentFailed(_) | Notice::PaymentReminder(_) => (Template::PaymentFailed, account()),
        Notice::Suspended(_) => {
            (Template::Suspended, Values { suspended_because: suspended_because(&status).into(), ..account() })
        }
        Notice::PlanChanged(_) => (Template::PlanChanged, account()),
        Notice::PlanScheduled(_) => (Template::PlanScheduled, account()),
        Notice::PlanDeclined(_) => (Template::PlanDeclined, account()),
        Notice::PlanUnconfirmed(_) => (Template::PlanUnconfirmed, account()),
        Notice::UsageReached { percent, what } => usage_mail::letter(mail, tenant, plans.in_force, *percent, what),
        Notice::DeletionRequested(_) => (Template::DeletionRequested, account()),
        Notice::ExportReady(_) => (Template::ExportReady, account()),
        Notice::AddressChanged(_) => (Template::AddressChanged, Values::default()),
        Notice::WinBack => (Template::WinBack, Values { unsubscribe: identity.unsubscribe_link(tenant), ..account() }),
        Notice::Erased => (Template::Erased, Values { certificate: certificate(&status), ..Values::default() }),
        Notice::KeptAlert
        | Notice::FailedAlert(_)
        | Notice::WelcomeFailedAlert
        | Notice::DisputeAlert(_)
        | Notice::PriceAlert(_)
        | Notice::RenewedAlert(_)
        | Notice::EndsAlert(_)
        | Notice::SurplusAlert(_)
        | Notice::SlowAlert(_)
        | Notice::DataAlert(_)
        | Notice::NamespaceMissingAlert(_) => return None,
    })
}

/// What e-mails say about a tenant, beside what is their own.
fn about(tenant: &Tenant, Plans { in_force: plan, wanted }: Plans<'_>, notice: &Notice, own: Values) -> Values {
    let status = tenant.status.clone().unwrap_or_default();
    let day = |at: Timestamp| at.to_string().chars().take(10).collect();
    let terms = tenant.spec.terms.as_ref();
    let title = |plan: Option<&Plan>, name: &str| plan.map_or_else(|| name.to_owned(), Plan::title);
    let effective_at = status.plan_change.as_ref().and_then(|change| change.effective_at);
    Values {
        company: if is_named(tenant, notice) { tenant.spec.company_name.clone() } else { String::new() },
        tenant_id: tenant.tenant_id().into(),
        plan: title(plan, tenant.plan_in_force()),
        new_plan: title(wanted, &tenant.spec.plan),
        effective: effective_at.map(day).unwrap_or_default(),
        expires: status.export.as_ref().and_then(|export| export.expires_at).map(day).unwrap_or_default(),
        erases: status.erases_at.map(day).unwrap_or_default(),
        sample_question: plan.map_or_else(|| SAMPLE_QUESTION.into(), |p| p.spec.sample_question.to_string()),
        trial_ends: status.trial_ends_at.map(day).unwrap_or_default(),
        terms_version: terms.map(|t| t.version.clone()).unwrap_or_default(),
        terms_accepted: terms.map(|t| day(t.accepted_at)).unwrap_or_default(),
        ..own
    }
}

/// The text of an alert. Most alerts quote the condition, which gives the details and the fix.
fn alert_text(tenant: &Tenant, notice: &Notice) -> String {
    let who = format!("{} ({})", tenant.place(), tenant.spec.company_name);
    let status = tenant.status.clone().unwrap_or_default();
    let what = status.message.as_deref().unwrap_or_default();
    let quoted = |type_: &str, otherwise: &str| {
        let shown = conditions::get(&status.conditions, type_);
        format!("Tenant {who}: {}", shown.map_or(otherwise, |condition| &condition.message))
    };
    match notice {
        Notice::FailedAlert(_) => format!("Provisioning of tenant {who} failed: {what}"),
        Notice::WelcomeFailedAlert => format!("The welcome e-mail to tenant {who} was not sent. Retrying"),
        Notice::DisputeAlert(_) => quoted(conditions::PAYMENT_DISPUTED, "A payment is disputed"),
        Notice::PriceAlert(_) => quoted(conditions::PRICE_AS_PLANNED, "Stripe bills the price of another plan"),
        Notice::RenewedAlert(_) => quoted(conditions::ERASED, "Stripe renews the subscription of a closed tenant"),
        Notice::EndsAlert(_) => {
            quoted(conditions::RENEWAL_STOPPED, "Stripe ends the subscription of a tenant that is open")
        }
        Notice::SurplusAlert(_) => quoted(conditions::SINGLE_SUBSCRIPTION, "Stripe bills more than one subscription"),
        Notice::SlowAlert(_) => format!("Tenant {who} has paid and is still not Active: {what}"),
        Notice::DataAlert(_) => {
            let store = Provider::VectorStore;
            let otherwise = format!("Another {store} namespace than the object names holds documents");
            quoted(conditions::DATA_IN_ONE_PLACE, &otherwise)
        }
        Notice::NamespaceMissingAlert(_) => {
            format!("The {} namespace of tenant {who} no longer exists", Provider::VectorStore)
        }
        _ => format!("Tenant {who}: {what}"),
    }
}

/// The link that a customer asked for.
fn link(identity: &IdentityKey, tenant: &Tenant, request: MailRequest) -> (Template, Values) {
    let template = match request.kind {
        LinkKind::VerifyEmail => Template::VerifyEmail,
        LinkKind::LoginLink => Template::LoginLink,
        LinkKind::PasswordReset => Template::PasswordReset,
        LinkKind::Invitation => Template::Invitation,
    };
    let valid_for = words(request.kind.life());
    (template, Values { path: identity.link(tenant, request), valid_for, ..Values::default() })
}

/// How a customer gets in: by the password of the signup, by an invitation to set one, or by the API alone.
fn way_in(mail: &Mail, identity: &IdentityKey, tenant: &Tenant, now: Timestamp) -> Values {
    if tenant.spec.login.is_some() {
        return Values::default();
    }
    if !mail.has_pages(tenant.place().namespace) {
        return Values { api_only: true, ..Values::default() };
    }
    let request = MailRequest { kind: LinkKind::Invitation, at: now };
    let valid_for = words(request.kind.life());
    Values { invitation: identity.link(tenant, request), valid_for, ..Values::default() }
}

/// Whether an e-mail names the company. A stranger may sign up with any address and any text as the company's name; so
/// the name goes to an address that was confirmed, to a customer who was set up, and to one whom an admin knows.
fn is_named(tenant: &Tenant, notice: &Notice) -> bool {
    let annotation = |name: &str| tenant.metadata.annotations.as_ref().and_then(|all| all.get(name));
    let label = tenant.metadata.labels.as_ref().and_then(|labels| labels.get(EMAIL_LABEL));
    let confirmed = label.is_some() && annotation(VERIFIED_ANNOTATION) == label;
    let served = tenant.status.as_ref().is_some_and(|status| status.provisioned_at.is_some());
    let invited = matches!(notice, Notice::Link(request) if request.kind == LinkKind::Invitation);
    confirmed || served || invited || tenant.spec.login.is_none()
}

/// What the customer can do about a suspension.
fn suspended_because(status: &TenantStatus) -> &'static str {
    match suspended_for(status) {
        SuspendedFor::Payment => {
            "A payment is missing. Pay on your account page, and the account works again within a minute."
        }
        SuspendedFor::End => {
            "Your subscription has ended. Subscribe again on your account page, and the account works again within a minute."
        }
        SuspendedFor::Dispute => {
            "A payment was disputed at your bank. Reply to this e-mail so that we can settle it with you."
        }
        SuspendedFor::Admin => "Our team has suspended it. Reply to this e-mail if you do not know why.",
    }
}

/// A time as people say it: `24 hours`.
fn words(seconds: i64) -> String {
    let (number, unit) = match seconds {
        7200.. => (seconds / 3600, "hour"),
        120.. => (seconds / 60, "minute"),
        _ => (seconds.max(1), "second"),
    };
    if number == 1 { format!("1 {unit}") } else { format!("{number} {unit}s") }
}

/// What was erased, a line each, and what a provider may still hold.
fn certificate(status: &TenantStatus) -> String {
    let Some(erasure) = &status.erasure else { return String::new() };
    let line = |l: &ErasureLine| format!("{}: {} {}, {} left", l.provider, l.before, l.what, l.after.unwrap_or(0));
    let mut lines: Vec<_> = erasure.lines.iter().map(line).collect();
    lines.push(format!("Erased at {}", erasure.erased_at.unwrap_or(erasure.started_at)));
    lines.push(format!(
        "{} may keep deleted data for up to 90 days in its backups; Stripe keeps invoices as the law requires",
        Provider::VectorStore
    ));
    lines.join("\n")
}

/// Tells the platform team of a customer whose object was deleted, the so many-th lately.
pub async fn kept(alerts: &Alerts, tenant: &Tenant, count: usize) -> Result<Outcome, ProviderError> {
    let who = format!("{} ({})", tenant.place(), tenant.spec.company_name);
    let (store, namespace) = (Provider::VectorStore, tenant.data_namespace());
    let text = if count < 10 {
        format!(
            "Tenant {who} was deleted without the annotation tenant-operator.dev/erase, so its {store} namespace {namespace}, \
             subscription and Stripe customer are kept. To serve the customer again, apply the Tenant from a backup with \
             spec.tenantId and the annotation tenant-operator.dev/identity-proof, or run `tenant-operator recover`"
        )
    } else {
        format!(
            "{count} Tenants were deleted within minutes, the last one {who}, without the annotation tenant-operator.dev/erase: this \
             looks like an accident. Their {store} namespaces, subscriptions and customers are kept, and web still serves \
             them. Stop what deletes them, then apply them again from a backup or run `tenant-operator recover`"
        )
    };
    alert(alerts, &text).await
}

async fn alert(alerts: &Alerts, text: &str) -> Result<Outcome, ProviderError> {
    alerts.send(text).await?;
    Ok(Outcome::Done)
}

/// What a customer hears whose refund is not made yet, or is a person's to make.
const OWED: &str =
    "If you have paid, you will get your money back, and you will not be charged until the account works.";

fn refunded(tenant: &Tenant) -> String {
    let refund = tenant.status.as_ref().and_then(|s| s.refund.as_ref());
    let Some(refund) = refund.filter(|refund| !refund.waived) else { return OWED.into() };
    if refund.amount == 0 {
        return "You have not been charged, and you will not be until the account works.".into();
    }
    let money = Money { amount: refund.amount, currency: refund.currency.as_deref().unwrap_or_default().into() };
    format!("Your payment of {money} has been refunded. You will not be charged until the account works.")
}

/// Notes what was sent, in an annotation that outlives the status. Only the controller writes it, so an edit of the
/// object in the meantime is no reason to send again.
pub async fn mark(kubernetes: &Kubernetes, tenant: &Tenant, sent: &[Notice]) -> Result<Tenant, kube::Error> {
    let before = tenant.metadata.annotations.as_ref().and_then(|a| a.get(SENT_ANNOTATION));
    let before = before.into_iter().flat_map(|list| list.split(',')).filter(|s| !s.is_empty()).map(str::to_owned);
    let before = before.filter(|key| !sent.iter().any(|notice| notice.supersedes(key)));
    let all: std::collections::BTreeSet<_> = before.chain(sent.iter().map(Notice::key)).collect();
    let list = all.into_iter().collect::<Vec<_>>().join(",");
    kubernetes.patch_same(tenant, "notice", json!({"metadata": {"annotations": {SENT_ANNOTATION: list}}})).await
}
