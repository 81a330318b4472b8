//! Whether the customer confirmed the e-mail address of the signup. The controller provisions no tenant before that.

use super::notices;
use crate::api::conditions::EMAIL_VERIFIED;
use crate::api::facts::Awaited;
use crate::api::phase::{EventType, TriggeredBy};
use crate::api::{ConditionStatus, LinkKind, MailRequest, Phase, TenantStatus};
use crate::lifecycle::status::{Draft, Summary};
use crate::lifecycle::{Decision, EmailVerification, Input, Notice, Step, is_link};

/// The step of a tenant that failed because the address was never confirmed.
const STEP: Step = Step::EmailVerification;

/// Whether the customer still has to confirm the address. A tenant from a manifest needs no confirmation, because its
/// author vouches for it. A tenant that was served before is not failed and refunded for a confirmation that was never
/// requested.
pub fn missing(input: &Input) -> bool {
    wanted(input) && !input.tenant.email_verified && !input.tenant.served_before()
}

/// Whether there is no payment link before that.
pub fn before_payment(input: &Input) -> bool {
    missing(input) && input.policy.email_verification == EmailVerification::BeforePayment
}

fn wanted(input: &Input) -> bool {
    // A customer who was served before has confirmed the address, or signed up when this was not required.
    input.tenant.status.phase != Some(Phase::Suspended)
        && input.policy.email_verification != EmailVerification::Off
        && input.tenant.spec.login.is_some()
}

/// Whether the address is confirmed.
pub fn show(input: &Input, draft: &mut Draft) {
    if !wanted(input) {
        return;
    }
    draft.status.email_confirmed = Some(input.tenant.email_verified);
    if input.tenant.email_verified {
        let message = "The customer confirmed the e-mail address";
        draft.condition(EMAIL_VERIFIED, ConditionStatus::True, "Verified", message);
    } else {
        let message = "Waiting for the customer to open the link in the confirmation e-mail";
        draft.condition(EMAIL_VERIFIED, ConditionStatus::False, Awaited::Confirmation.reason(), message);
    }
}

/// Sends the confirmation e-mail as soon as nothing is more urgent, and shortens a wait so that an e-mail that failed
/// is sent again in time.
pub fn send(input: &Input, decision: Decision) -> Decision {
    if !missing(input) || !matches!(decision, Decision::Wait(_)) {
        return decision;
    }
    // A confirmation that the customer asked for is sent elsewhere and replaces this one. So does an invitation:
    // accepting it confirms the address as well.
    let stands = |key: &String| is_link(key, LinkKind::VerifyEmail) || is_link(key, LinkKind::Invitation);
    if input.tenant.sent.iter().any(stands) {
        return decision;
    }
    let first = [Notice::Link(MailRequest { kind: LinkKind::VerifyEmail, at: input.tenant.created_at })];
    let again = notices::any_unsent(input, &first).then_some(input.policy.notice_retry);
    notices::tell(input, &first).unwrap_or_else(|| notices::wait_at_most(decision, again))
}

/// There is no payment link yet.
pub fn await_before_payment(mut draft: Draft, wait: i64) -> Decision {
    let message = "Waiting for the customer to confirm the e-mail address; the payment link follows";
    draft.awaits(Awaited::Confirmation, message);
    draft.changed().unwrap_or(Decision::Wait(Some(wait)))
}

/// The customer has paid, and the controller waits with the setup. The wait has a limit, because a customer is not
/// charged for a tenant that is not served.
pub fn await_after_payment(input: &Input, mut draft: Draft) -> Decision {
    draft.awaits(Awaited::ConfirmationOfPaid, "Paid; waiting for the customer to confirm the e-mail address");
    let since = draft.status.awaiting.map_or(input.now, |awaiting| awaiting.since);
    let left = input.until(since.plus(input.policy.verification_limit));
    if left > 0 {
        return draft.changed().unwrap_or(Decision::Wait(Some(left)));
    }
    let message = format!(
        "Provisioning failed at {STEP}: the customer paid and did not confirm the e-mail address within {} s",
        input.policy.verification_limit
    );
    draft.status.awaiting = None;
    let mut run = input.fresh_run();
    // A run of its own, so that the notices of this failure do not suppress those of a later one.
    run.retry_token = run.retry_token.or_else(|| Some("email-not-verified".into()));
    run.failed_step = Some(STEP.to_string());
    run.reason = Some("EmailNotVerified".into());
    run.last_error = Some("The e-mail address was not confirmed".into());
    draft.status.provisioning = Some(run);
    draft.enter(Phase::Failed, EventType::Fail, TriggeredBy::System, &message);
    draft.summary(Summary::Stalled, "EmailNotVerified", &message);
    draft.changed().unwrap_or(Decision::Wait(None))
}

/// Whether the tenant failed because its customer never confirmed the address.
pub fn failed_unconfirmed(status: &TenantStatus) -> bool {
    status.provisioning.as_ref().and_then(|run| run.failed_step.as_deref()) == Some(STEP.into())
}

/// The customer confirmed the address after all.
pub fn came_late(input: &Input) -> bool {
    failed_unconfirmed(&input.tenant.status) && input.tenant.email_verified
}
