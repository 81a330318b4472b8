//! What a customer reads of their tenant. No vendor's text, no message of Kubernetes, no command ever gets here.

use serde::Serialize;
use utoipa::ToSchema;

use crate::api::conditions::{
    API_KEY_READY, EMAIL_VERIFIED, NAMESPACE_READY, PAYMENT_RECEIVED, SAMPLE_DATA_READY, WELCOME_EMAIL_SENT, get,
};
use crate::api::facts::{Awaited, SuspendedFor};
use crate::api::status::PlanChangeState;
use crate::api::{ConditionStatus, Phase, Tenant, TenantStatus, Timestamp};
use crate::lifecycle::{link_on_request, suspended_for};

/// How far an account is.
#[derive(Serialize, ToSchema)]
pub struct Progress {
    /// The tenant's id.
    #[schema(example = "0b8f6f0e-6d1f-4d6e-9d55-8a1c7a2f4e10")]
    tenant_id: String,
    /// The company.
    #[schema(example = "Analytical Engines Ltd")]
    company_name: String,
    /// The plan.
    #[schema(example = "starter")]
    plan: String,
    /// Where the account stands.
    #[schema(value_type = Option<String>, example = "Active")]
    phase: Option<Phase>,
    /// What is going on, in one sentence.
    #[schema(example = "Your account is ready.")]
    message: &'static str,
    /// Where to pay, while that is open.
    #[schema(example = json!(null))]
    checkout_url: Option<String>,
    /// Whether the account waits for a payment and has no open link: `POST /tenant/{id}/payment-link` makes one.
    #[schema(example = false)]
    link_on_request: bool,
    /// The plan that is asked for, if another one is in force.
    #[schema(example = "team")]
    requested_plan: Option<String>,
    /// When it takes effect, where that is scheduled.
    #[schema(value_type = Option<String>, format = DateTime, example = "2026-12-09T17:31:36Z")]
    plan_changes_at: Option<Timestamp>,
    /// Where to confirm the payment of the plan that is asked for, while the customer's bank asks for that.
    #[schema(example = json!(null))]
    confirm_url: Option<String>,
    /// When the data of an account that was closed is erased.
    #[schema(value_type = Option<String>, format = DateTime, example = json!(null))]
    erases_at: Option<Timestamp>,
    /// When the trial ends.
    #[schema(value_type = Option<String>, format = DateTime, example = "2026-12-23T17:31:36Z")]
    trial_ends_at: Option<Timestamp>,
    /// Attempts that failed.
    #[schema(example = 0)]
    attempts: u32,
    /// When the next attempt begins.
    #[schema(value_type = Option<String>, format = DateTime, example = json!(null))]
    next_retry_at: Option<Timestamp>,
    /// The steps.
    steps: Vec<Step>,
    /// The e-mail address, while it waits to be confirmed.
    #[schema(example = json!(null))]
    address_to_confirm: Option<String>,
    /// Whether the customer may ask to try again now.
    #[schema(example = false)]
    pub can_retry: bool,
}

/// One step.
#[derive(Serialize, ToSchema)]
struct Step {
    /// Names the step.
    #[schema(example = "NamespaceReady")]
    name: &'static str,
    /// done, waiting or delayed.
    #[schema(example = "done")]
    status: &'static str,
    /// In words.
    #[schema(example = "Your storage is ready")]
    message: &'static str,
}

const STEPS: [(&str, &str, &str, &str); 5] = [
    (PAYMENT_RECEIVED, "Payment received", "Waiting for your payment", "We could not check your payment yet"),
    (NAMESPACE_READY, "Your storage is ready", "Your storage is next", "Your storage takes longer than usual"),
    (API_KEY_READY, "Your API key is ready", "Your API key is next", "Your API key takes longer than usual"),
    (
        SAMPLE_DATA_READY,
        "Sample documents are loaded",
        "Sample documents are next",
        "Sample documents take longer than usual",
    ),
    (WELCOME_EMAIL_SENT, "Welcome e-mail sent", "The welcome e-mail is next", "The welcome e-mail is delayed"),
];

/// Only where the address has to be confirmed.
const CONFIRMED: (&str, &str, &str, &str) = (
    EMAIL_VERIFIED,
    "Your e-mail address is confirmed",
    "Open the link in the e-mail that we sent you",
    "Open the link in the e-mail that we sent you",
);

fn step(
    (type_, done, waiting, delayed): (&'static str, &'static str, &'static str, &'static str),
    status: &TenantStatus,
) -> Step {
    let (state, message) = match get(&status.conditions, type_).map(|condition| condition.status) {
        Some(ConditionStatus::True) => ("done", done),
        Some(ConditionStatus::False) if !ordinary(type_, status) => ("delayed", delayed),
        _ => ("waiting", waiting),
    };
    Step { name: type_, status: state, message }
}

fn steps(status: &TenantStatus) -> Vec<Step> {
    let confirmed = status.email_confirmed.map(|_| CONFIRMED);
    confirmed.into_iter().chain(STEPS).map(|s| step(s, status)).collect()
}

/// Whether the account waits for the customer to confirm the address.
fn unconfirmed(status: &TenantStatus) -> bool {
    let open = matches!(status.phase, Some(Phase::PendingPayment | Phase::Failed));
    open && status.email_confirmed == Some(false)
}

/// Where it failed, or takes longer than is normal.
fn can_retry(status: &TenantStatus) -> bool {
    match status.phase {
        Some(Phase::Failed) => !unconfirmed(status),
        Some(Phase::Provisioning) => status.slow_since.is_some(),
        _ => false,
    }
}

/// Whether a step that is not done is an ordinary wait, and no delay.
fn ordinary(type_: &str, status: &TenantStatus) -> bool {
    let for_payment = || status.awaiting.is_some_and(|awaiting| awaiting.what != Awaited::Capacity);
    type_ == EMAIL_VERIFIED || (type_ == PAYMENT_RECEIVED && for_payment())
}

/// What is going on, in one sentence.
pub fn sentence(status: &TenantStatus) -> &'static str {
    match (status.phase, status.awaiting.map(|awaiting| awaiting.what)) {
        (None, _) => "Your account is being prepared.",
        (Some(Phase::PendingPayment), Some(Awaited::Processing)) => "Your payment is being processed.",
        (Some(Phase::PendingPayment), Some(Awaited::Approval)) => {
            "Your account waits for the approval of your contract."
        }
        (Some(Phase::PendingPayment), Some(Awaited::Capacity)) => {
            "We are making room for new accounts. You can pay as soon as yours can be set up."
        }
        (Some(Phase::PendingPayment), Some(Awaited::Confirmation)) => {
            "Please confirm your e-mail address. You can pay right after."
        }
        (Some(Phase::PendingPayment), Some(Awaited::ConfirmationOfPaid)) => {
            "Please confirm your e-mail address. Your account is set up right after."
        }
        (Some(Phase::PendingPayment), _) if status.checkout.is_some() => "Please complete your payment.",
        (Some(Phase::PendingPayment), _) if link_on_request(status) => {
            "Your payment link has expired. Ask for a new one to complete your payment."
        }
        (Some(Phase::PendingPayment), _) => "Your payment link is being prepared.",
        (Some(Phase::Provisioning), _) => {
            let held = status.provisioning.as_ref().is_some_and(|p| p.held_since.is_some() || p.attempts > 0);
            if held {
                "Setting up your account takes longer than usual. We are on it."
            } else {
                "Your account is being set up."
            }
        }
        (Some(Phase::Active | Phase::Upgrading | Phase::Downgrading), _) => "Your account is ready.",
        (Some(Phase::Suspended), _) => match suspended_for(status) {
            SuspendedFor::Admin | SuspendedFor::Dispute => {
                "Your account is suspended. Your documents are kept. Please write to us."
            }
            SuspendedFor::End => {
                "Your account is suspended because your subscription has ended. Your documents are kept. Subscribe again, and it works within a minute."
            }
            SuspendedFor::Payment => {
                "Your account is suspended because a payment is missing. Your documents are kept. Pay, and it works again within a minute."
            }
        },
        (Some(Phase::Failed), _) if unconfirmed(status) => {
            "Your e-mail address was not confirmed in time, so your account was not set up. You are not charged. Ask \
             for a new confirmation e-mail to continue."
        }
        (Some(Phase::Failed), _) => {
            "We could not set up your account. Our engineers have been told, and you will not be charged until it works."
        }
        (Some(Phase::Deleting), _) if status.erasure.is_none() && status.erases_at.is_some() => {
            "Your account is closed. You can take it back until its data is erased."
        }
        (Some(Phase::Deleting), _) => "Your account is being deleted.",
        (Some(Phase::Deleted), _) => "Your account was deleted.",
    }
}

/// When a scheduled change of plan takes effect.
pub fn effective_at(status: &TenantStatus) -> Option<Timestamp> {
    status.plan_change.as_ref().filter(|c| c.state == PlanChangeState::Scheduled)?.effective_at
}

/// Where to confirm the payment of another plan, while it waits for that.
pub fn confirm_url(status: &TenantStatus) -> Option<String> {
    status.plan_change.as_ref().filter(|c| c.state == PlanChangeState::Unconfirmed)?.confirm_url.clone()
}

impl Progress {
    /// Whether the customer still has to confirm the e-mail address.
    pub fn awaits_confirmation(&self) -> bool {
        self.address_to_confirm.is_some()
    }

    pub fn of(tenant: &Tenant) -> Self {
        let status = tenant.status.clone().unwrap_or_default();
        Self {
            tenant_id: tenant.tenant_id().into(),
            company_name: tenant.spec.company_name.clone(),
            plan: tenant.plan_in_force().into(),
            requested_plan: (tenant.plan_in_force() != tenant.spec.plan).then(|| tenant.spec.plan.clone()),
            plan_changes_at: effective_at(&status),
            confirm_url: confirm_url(&status),
            erases_at: status.erases_at.filter(|_| status.phase == Some(Phase::Deleting) && status.erasure.is_none()),
            phase: status.phase,
            message: sentence(&status),
            steps: steps(&status),
            address_to_confirm: unconfirmed(&status).then(|| tenant.spec.admin_email.clone()),
            can_retry: can_retry(&status),
            link_on_request: link_on_request(&status),
            checkout_url: status.checkout.map(|c| c.url),
            trial_ends_at: status.trial_ends_at,
            attempts: status.provisioning.as_ref().map_or(0, |p| p.attempts),
            next_retry_at: status.provisioning.and_then(|p| p.next_retry_at),
        }
    }
}
