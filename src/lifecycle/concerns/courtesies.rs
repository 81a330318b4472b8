//! E-mails that help a customer along and that nothing depends on. Each is sent once, soon after its occasion or not at
//! all, so an admin who switches one on does not send it to customers whose occasion is long past.

use super::notices;
use crate::api::Timestamp;
use crate::lifecycle::{Input, Notice};

/// Seconds until something is due.
pub fn wait(input: &Input) -> Option<i64> {
    let nudge = nudge_at(input).filter(|_| !input.tenant.noted(&Notice::FirstQuestion));
    nudge.map(|at| at.since(input.now)).filter(|left| *left > 0)
}

/// What is due, sent or not.
pub fn due(input: &Input) -> Vec<Notice> {
    let timely = |at: Timestamp| notices::timely(input, at);
    // A customer without a login has no pages.
    let Some(active_at) = input.tenant.status.provisioned_at.filter(|_| input.tenant.spec.login.is_some()) else {
        return Vec::new();
    };
    let mut due = Vec::new();
    if input.policy.data_processing_agreement && timely(active_at) {
        due.push(Notice::DataProcessingAgreement);
    }
    if nudge_at(input).is_some_and(|at| at <= input.now && timely(at)) {
        due.push(Notice::FirstQuestion);
    }
    if !input.tenant.unsubscribed && input.tenant.completed_at.is_some_and(timely) {
        due.push(Notice::Congratulation);
    }
    due
}

/// When a customer who has asked nothing is reminded.
fn nudge_at(input: &Input) -> Option<Timestamp> {
    let tenant = input.tenant;
    let wanted = input.policy.nudge_after > 0 && !tenant.asked && !tenant.unsubscribed && tenant.spec.login.is_some();
    tenant.status.provisioned_at.filter(|_| wanted).map(|at| at.plus(input.policy.nudge_after))
}
