//! Erases a tenant at every provider, with a certificate: counts what each holds, deletes it, counts again, tells the
//! customer, and keeps only the record.

use super::notices;
use crate::api::conditions::ERASED;
use crate::api::phase::{EventType, TriggeredBy};
use crate::api::status::{Erasure, ErasureLine};
use crate::api::tenant::Desired;
use crate::api::{ConditionStatus, LEGAL_HOLD_ANNOTATION, Phase, Timestamp};
use crate::lifecycle::status::{Draft, Summary};
use crate::lifecycle::{Decision, Effect, Holdings, Input, Notice, Provider};

/// An address that refuses mail delays the end of the erasure by a day at most.
const CERTIFICATE_LIMIT: i64 = 24 * 3600;

/// Finishes an erasure. The annotation that says the tenant is erased counts only if the controller was about to write
/// it, or if the status is lost. Otherwise it may be another writer's.
pub fn finish(input: &Input) -> Option<Decision> {
    let status = &input.tenant.status;
    let finished = status.erasure.as_ref().is_some_and(|e| e.erased_at.is_some());
    let expected = status.phase.is_none() || (status.phase == Some(Phase::Deleting) && finished);
    expected.then(|| record_erased(input)).flatten()
}

/// Waits until an upload that was under way when the tenant was closed has ended, and says so: it may make the
/// namespace again after it was deleted. None from then on, and for a tenant that was never served.
pub fn wait_for_uploads(input: &Input) -> Option<Decision> {
    input.tenant.status.provisioned_at.as_ref()?;
    let end = since(input).plus(input.policy.upload_limit);
    let wait = input.until(end);
    if wait <= 0 {
        return None;
    }
    let message = format!(
        "Everything is deleted. An upload that was under way can still write until {end}; after that, everything is deleted once more"
    );
    let mut draft = Draft::new(input);
    draft.summary(Summary::Reconciling, "WaitingForUploads", &message);
    Some(draft.changed().unwrap_or(Decision::Wait(Some(wait))))
}

/// Whether there is no way back: the day of the erasure has come, or it has begun.
pub fn is_erasing(input: &Input) -> bool {
    let (spec, status) = (&input.tenant.spec, &input.tenant.status);
    let due = spec.desired == Desired::Deleted && status.erases_at.is_some_and(|at| input.until(at) <= 0);
    status.phase == Some(Phase::Deleting) && (due || status.erasure.is_some())
}

/// When it was closed.
pub fn since(input: &Input) -> Timestamp {
    let entered = input.tenant.status.transitions.iter().rfind(|t| t.to_state == Phase::Deleting);
    entered.map_or(input.tenant.created_at, |t| t.timestamp)
}

/// An admin's legal hold stops the erasure.
pub fn on_hold(input: &Input) -> Option<Decision> {
    let why = input.tenant.legal_hold.as_ref()?;
    let message = format!("The erasure is on hold: {why}. Remove the annotation {LEGAL_HOLD_ANNOTATION} to continue");
    let mut draft = Draft::new(input);
    draft.condition(ERASED, ConditionStatus::False, "LegalHold", &message);
    draft.summary(Summary::Waiting, "LegalHold", &message);
    Some(draft.changed().unwrap_or(Decision::Wait(None)))
}

/// Begins the erasure, once the controller has counted what the providers hold.
pub fn begin(input: &Input) -> Decision {
    let Some(holdings) = &input.observed.holdings else { return Decision::Act(vec![Effect::CountHoldings]) };
    let mut draft = Draft::new(input);
    draft.status.erasure = Some(Erasure { started_at: input.now, erased_at: None, lines: lines(holdings) });
    let message = "Erasing the tenant's data at every provider";
    draft.condition(ERASED, ConditionStatus::False, "Erasing", message);
    draft.summary(Summary::Reconciling, "Erasing", message);
    draft.changed().unwrap_or(Decision::Wait(None))
}

/// The holdings, as the certificate names them.
fn lines(holdings: &Holdings) -> Vec<ErasureLine> {
    let line = |provider: &str, what: &str, before: u64| ErasureLine {
        provider: provider.into(),
        what: what.into(),
        before,
        after: None,
    };
    let exports = (holdings.exports > 0).then(|| line("Export storage", "files", holdings.exports));
    let store = Provider::VectorStore.into();
    let always = [
        line(store, "namespaces", holdings.namespaces),
        line(store, "vectors", holdings.vectors),
        line("Kubernetes", "Secrets", holdings.secrets),
        line("Stripe", "subscriptions", holdings.subscriptions),
        line("Stripe", "customers", holdings.customers),
    ];
    always.into_iter().chain(exports).collect()
}

/// The customers that stay at Stripe, and why. They no longer name the tenant.
fn kept(holdings: &Holdings) -> Option<ErasureLine> {
    let count = holdings.kept_customers;
    (count > 0).then(|| ErasureLine {
        provider: "Stripe".into(),
        what: "customers kept, because subscriptions that are not this tenant's bill them".into(),
        before: count,
        after: Some(count),
    })
}

/// Erases the tenant. There is no way back: deletes everything, counts it again, and keeps only the record.
pub fn proceed(input: &Input, erasure: &Erasure) -> Decision {
    if erasure.erased_at.is_some() {
        return farewell(input);
    }
    let mut wanted = vec![Effect::DeleteNamespace, Effect::DeleteSecrets];
    if input.by_stripe() {
        wanted.push(Effect::EraseBilling);
    }
    if input.policy.exports_kept.is_some() {
        wanted.push(Effect::DeleteExports);
    }
    wanted.retain(|effect| !input.observed.done.contains(effect));
    if !wanted.is_empty() {
        return Decision::Act(wanted);
    }
    if let Some(waiting) = wait_for_uploads(input) {
        return waiting;
    }
    let Some(left) = &input.observed.holdings else { return Decision::Act(vec![Effect::CountHoldings]) };
    let mut draft = Draft::new(input);
    let mut erasure = erasure.clone();
    let (kept, left) = (kept(left), lines(left));
    for line in &mut erasure.lines {
        let now = left.iter().find(|now| (&now.provider, &now.what) == (&line.provider, &line.what));
        line.after = Some(now.map_or(0, |now| now.before));
    }
    if let Some(line) = erasure.lines.iter().find(|line| line.after != Some(0)) {
        let message = format!("{} still has {} {}. Retrying", line.provider, line.after.unwrap_or(0), line.what);
        draft.condition(ERASED, ConditionStatus::False, "NotErased", &message);
        return draft.changed().unwrap_or(Decision::Wait(Some(input.policy.notice_retry)));
    }
    erasure.lines.extend(kept);
    erasure.erased_at = Some(input.now);
    draft.status.erasure = Some(erasure);
    draft.changed().unwrap_or(Decision::Wait(None))
}

/// The certificate goes to the customer while the address is still known; then the address goes too.
fn farewell(input: &Input) -> Decision {
    let told = [Notice::Erased];
    if let Some(decision) = notices::tell(input, &told) {
        return decision;
    }
    let late = input
        .tenant
        .status
        .erasure
        .as_ref()
        .and_then(|e| e.erased_at)
        .is_none_or(|at| input.now.since(at) > CERTIFICATE_LIMIT);
    if notices::any_unsent(input, &told) && !late {
        return Decision::Wait(Some(input.notice_wait()));
    }
    Decision::Act(vec![Effect::EraseIdentity])
}

/// The object's annotation says that its tenant is erased. Reduces the status to that, and drops what it said before.
fn record_erased(input: &Input) -> Option<Decision> {
    let erasure = input.tenant.erasure.clone()?;
    let mut draft = Draft::new(input);
    let (transitions, phase) = (draft.status.transitions.clone(), draft.status.phase);
    draft.status = crate::api::TenantStatus {
        transitions,
        shipped_seq: draft.status.shipped_seq,
        phase,
        observed_generation: draft.status.observed_generation,
        erasure: Some(erasure),
        ..crate::api::TenantStatus::default()
    };
    let message = "Everything is erased. This record is all that is kept";
    draft.enter(Phase::Deleted, EventType::Delete, TriggeredBy::System, message);
    draft.condition(ERASED, ConditionStatus::True, "Erased", message);
    draft.summary(Summary::Waiting, "Erased", message);
    draft.changed()
}
