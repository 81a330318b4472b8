//! The links that customers ask for on the pages: to confirm their address, to log in, to set a new password.

use super::notices;
use crate::api::LinkKind;
use crate::lifecycle::{Decision, Input, Notice};

/// The links that are still to be sent. A person waits for them, so they go before everything else. One that could not
/// be sent is tried again soon.
pub fn decide(input: &Input) -> Option<Decision> {
    let open = open(input);
    let again = || notices::any_unsent(input, &open).then_some(Decision::Wait(Some(input.policy.notice_retry)));
    notices::tell(input, &open).or_else(again)
}

/// The requests that were not answered, while their links would still be good. A customer without a login can be
/// invited, and is sent no other link.
fn open(input: &Input) -> Vec<Notice> {
    let tenant = input.tenant;
    let login = tenant.spec.login.is_some();
    let requests = tenant.mail_requests.iter().filter(|request| login || request.kind == LinkKind::Invitation);
    let open = requests.filter(|request| request.is_open(input.now)).map(|request| Notice::Link(*request));
    open.filter(|link| !tenant.noted(link)).collect()
}
