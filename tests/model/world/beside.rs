//! Work beside a tenant's phases: shipping its transitions to the event store, and an export of its data.

use std::collections::BTreeSet;

use tenant_operator::api::status::ExportState;
use tenant_operator::api::{TenantStatus, Timestamp};
use tenant_operator::lifecycle::{ObservedExport, Outcome, View};

use crate::mistakes::Mistake;

/// An export, which a task of the controller writes beside its reconciles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Task {
    pub running: bool,
    complete: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Beside {
    /// The transitions that were ever in the object.
    recorded: BTreeSet<i64>,
    /// Those that the event store has.
    shipped: BTreeSet<i64>,
    /// One has left the object that was never shipped.
    pub lost: bool,
    /// One was shipped that the object never had.
    pub invented: bool,
    pub task: Task,
    /// There are files of an export.
    pub files: bool,
}

impl Beside {
    /// The status is replaced.
    pub fn recorded(&mut self, before: &TenantStatus, after: &TenantStatus) {
        let kept: BTreeSet<_> = after.transitions.iter().map(|t| t.seq).collect();
        self.lost |= before.transitions.iter().any(|t| !kept.contains(&t.seq) && !self.shipped.contains(&t.seq));
        self.recorded.extend(kept);
    }

    /// The object is gone.
    pub fn gone(&mut self, status: &TenantStatus) {
        self.lost |= !self.has_all(status);
    }

    /// Whether the event store has every transition.
    pub fn has_all(&self, status: &TenantStatus) -> bool {
        status.transitions.iter().all(|t| self.shipped.contains(&t.seq))
    }

    /// What the reconcile holds goes to the event store.
    pub fn ship(&mut self, view: &View) -> Outcome {
        let all = view.status.transitions.iter().map(|t| t.seq);
        self.invented |= all.clone().any(|seq| !self.recorded.contains(&seq));
        self.shipped.extend(all);
        Outcome::Shipped(view.status.transitions.last().map_or(0, |t| t.seq))
    }

    /// Begins the export, or says how far it is.
    pub fn export(&mut self) -> Outcome {
        Outcome::Export(if self.task.complete {
            ObservedExport::Done { path: "there".into(), files: 1, bytes: 1 }
        } else {
            self.task.running = true;
            ObservedExport::Running { files: self.files.into(), bytes: 0, problem: None }
        })
    }

    /// The task writes a file.
    pub fn go_on(&mut self) {
        self.files = true;
    }

    /// The task has written everything.
    pub fn end(&mut self) {
        self.task = Task { running: false, complete: true };
        self.files = true;
    }

    /// Deletes the files and stops the task that writes more of them.
    pub fn delete_exports(&mut self, mistake: Option<Mistake>) {
        self.files = false;
        if mistake != Some(Mistake::ExportGoesOn) {
            self.task = Task::default();
        }
    }

    /// The controller dies, and the task with it.
    pub fn crash(&mut self) {
        self.task.running = false;
    }

    /// When the files of an export that is complete are to go.
    pub fn due(status: &TenantStatus) -> Option<Timestamp> {
        status.export.as_ref().filter(|export| export.state == ExportState::Ready)?.expires_at
    }

    /// Whether the export that is asked for was written, and its files are gone again.
    pub fn is_over(&self, view: &View) -> bool {
        let Some(asked) = &view.spec.export_request else { return true };
        let state = view.status.export.as_ref().filter(|e| *e.request == **asked).map(|e| e.state);
        state == Some(ExportState::Expired) && !self.files
    }
}
