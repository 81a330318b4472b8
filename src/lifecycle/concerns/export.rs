//! An export of everything that belongs to a tenant. `spec.exportRequest` asks for it, a task writes it, an e-mail
//! announces it, and the controller deletes it after a while. It neither waits for other work nor delays it.

use super::notices;
use crate::api::conditions::EXPORT_READY;
use crate::api::status::{Export, ExportState as State};
use crate::api::{CUSTOMER_REQUEST, ConditionStatus, Phase, Timestamp};
use crate::lifecycle::agenda::sooner;
use crate::lifecycle::status::Draft;
use crate::lifecycle::{Decision, Effect, Input, Notice, ObservedExport};

/// What is to be done for the export now, if anything.
pub fn follow(input: &Input) -> Option<Decision> {
    let (tenant, status) = (input.tenant, &input.tenant.status);
    // Before there is anything, and once it is being erased, nothing is exported.
    if status.provisioned_at.is_none() || status.erasure.is_some() || status.phase == Some(Phase::Deleted) {
        return None;
    }
    let export = status.export.as_deref();
    let asked = tenant.spec.export_request.as_deref();
    if let Some(request) = asked.filter(|asked| export.is_none_or(|export| *export.request != **asked)) {
        return begin(input, request);
    }
    let export = export?;
    match export.state {
        State::Running => run(input, export),
        State::Ready if is_over(input, export) => expire(input, export),
        State::Ready => notices::tell(input, news(input).as_slice()),
        State::Failed | State::Expired => None,
    }
}

fn begin(input: &Input, request: &str) -> Option<Decision> {
    let mut export = Export {
        request: request.into(),
        state: State::Running,
        started_at: input.now,
        finished_at: None,
        expires_at: None,
        path: None,
        files: 0,
        bytes: 0,
    };
    let (reason, message) = if input.policy.exports_kept.is_some() {
        ("Running", "The export has begun")
    } else {
        export.state = State::Failed;
        (
            "NoStorage",
            "There is no storage for exports. Set EXPORTS_URL (exports.url in the chart), then set spec.exportRequest to a new name",
        )
    };
    note(input, export, ConditionStatus::False, reason, message)
}

fn run(input: &Input, export: &Export) -> Option<Decision> {
    let Some(seen) = &input.observed.export else { return Some(Decision::Act(vec![Effect::Export])) };
    let export = export.clone();
    match seen {
        ObservedExport::Done { path, files, bytes } => {
            let kept = input.policy.exports_kept.unwrap_or_default();
            let expires_at = input.now.plus(kept);
            let message = format!("The export is complete. Its files are deleted at {expires_at}");
            let done = Export {
                state: State::Ready,
                finished_at: Some(input.now),
                expires_at: Some(expires_at),
                path: Some(path.as_str().into()),
                files: *files,
                bytes: *bytes,
                ..export
            };
            note(input, done, ConditionStatus::True, "Ready", &message)
        }
        ObservedExport::Running { files, bytes, problem } => {
            let (files, bytes) = (*files, *bytes);
            let late = input.now.since(export.started_at) >= input.policy.export_limit;
            let (state, reason, message) = match problem {
                Some(problem) if late => {
                    let hours = input.policy.export_limit / 3600;
                    let message = format!(
                        "The export was not complete after {hours} hours: {problem}. Fix the cause, then set \
                         spec.exportRequest to a new name"
                    );
                    (State::Failed, "NotComplete", message)
                }
                Some(problem) => (State::Running, "Retrying", format!("{problem}. Retrying")),
                None => (State::Running, "Running", format!("{files} files are written")),
            };
            note(input, Export { state, files, bytes, ..export }, ConditionStatus::False, reason, &message)
        }
    }
}

fn is_over(input: &Input, export: &Export) -> bool {
    export.expires_at.is_none_or(|at| input.until(at) <= 0)
}

fn expire(input: &Input, export: &Export) -> Option<Decision> {
    // If exports are switched off, the controller cannot see or delete the files: the admin removed the storage.
    if input.policy.exports_kept.is_some() && !input.observed.done.contains(&Effect::DeleteExports) {
        return Some(Decision::Act(vec![Effect::DeleteExports]));
    }
    let expired = Export { state: State::Expired, path: None, ..export.clone() };
    note(input, expired, ConditionStatus::False, "Expired", "The files of the export were deleted")
}

fn note(input: &Input, export: Export, status: ConditionStatus, reason: &str, message: &str) -> Option<Decision> {
    let mut draft = Draft::new(input);
    draft.condition(EXPORT_READY, status, reason, message);
    draft.status.export = Some(Box::new(export));
    draft.changed()
}

/// Tells a customer who asked on the pages. An author of manifests sees it in the status.
fn news(input: &Input) -> Option<Notice> {
    let export = input.tenant.status.export.as_deref().filter(|export| export.state == State::Ready)?;
    let at = export.finished_at.filter(|_| export.request.starts_with(CUSTOMER_REQUEST))?;
    notices::timely(input, at).then(|| Notice::ExportReady(export.request.to_string()))
}

/// Seconds until the export's files are to be deleted, or its notice is tried again.
pub fn wait(input: &Input) -> Option<i64> {
    let again = notices::any_unsent(input, news(input).as_slice()).then(|| input.notice_wait());
    sooner(expires_in(input), again)
}

fn expires_in(input: &Input) -> Option<i64> {
    let export = input.tenant.status.export.as_deref().filter(|export| export.state == State::Ready)?;
    let left = input.until(export.expires_at.unwrap_or(Timestamp::from_second(0)));
    Some(if left > 0 { left } else { input.backoff() })
}
