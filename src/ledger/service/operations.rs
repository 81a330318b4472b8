//! Commands: reserve, checkpoint, settle, void, release.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use strum::IntoEnumIterator;

use super::Shared;
use super::answers::{ServiceProblem, respond};
use super::extract::{Body, Name};
use crate::ledger::decision::{Action, Answer, Command};
use crate::ledger::store::{Pending, StoreError};
use crate::ledger::units::Unit;
use crate::ledger::wire::{Checkpoint, CommandOutcome, Dated, PENDING, Reserve, Settlement, Void};

type Responded = Result<Json<CommandOutcome>, ServiceProblem>;

/// Sets amounts aside, if the limits leave them.
pub async fn reserve(
    State(shared): State<Arc<Shared>>,
    Name(operation): Name,
    Body(asked): Body<Reserve>,
) -> Responded {
    let Reserve { tenant, period, amounts, limits, expires_after } = asked;
    if amounts.is_zero() {
        return Err(ServiceProblem::Malformed("amounts: name at least one unit with more than 0".into()));
    }
    if !PENDING.contains(&expires_after) {
        let (least, most) = (PENDING.start(), PENDING.end());
        return Err(ServiceProblem::Malformed(format!(
            "expires_after is {expires_after}: use {least} to {most} seconds"
        )));
    }
    let action = Action::Reserve { period: period.0, amounts, limits, expires_after };
    shared.apply("reserve", Command { operation, tenant: tenant.0, action, at: None }).await
}

/// Notes what would be counted if the client were never heard of again.
pub async fn checkpoint(
    State(shared): State<Arc<Shared>>,
    Name(operation): Name,
    Body(asked): Body<Checkpoint>,
) -> Responded {
    let action = Action::Checkpoint { amounts: asked.amounts };
    shared.apply("checkpoint", Command { operation, tenant: asked.tenant.0, action, at: None }).await
}

/// Counts what was used, here or at another ledger.
pub async fn settle(
    State(shared): State<Arc<Shared>>,
    Name(operation): Name,
    Body(asked): Body<Settlement>,
) -> Responded {
    let Settlement { tenant, period, amounts, at, moved } = asked;
    if moved && at.is_some() {
        let why = "moved: leave out at: what another ledger counted happened at many times";
        return Err(ServiceProblem::Malformed(why.into()));
    }
    let period = period.0;
    let action = if moved { Action::Move { period, amounts } } else { Action::Settle { period, amounts } };
    shared.apply("settle", Command { operation, tenant: tenant.0, action, at }).await
}

/// Counts what was counted before the ledger began, unless the ledger has it.
pub async fn recount(State(shared): State<Arc<Shared>>, Name(operation): Name, Body(asked): Body<Dated>) -> Responded {
    let Dated { tenant, period, amounts, at } = asked;
    let began = shared.beginning().map(|beginning| beginning.began);
    let action = Action::Recount { period: period.0, amounts, began };
    shared.apply("recount", Command { operation, tenant: tenant.0, action, at }).await
}

/// Gives back everything.
pub async fn void(State(shared): State<Arc<Shared>>, Name(operation): Name, Body(asked): Body<Void>) -> Responded {
    let action = Action::Void { period: asked.period.0 };
    shared.apply("void", Command { operation, tenant: asked.tenant.0, action, at: None }).await
}

/// Takes away from levels.
pub async fn release(State(shared): State<Arc<Shared>>, Name(operation): Name, Body(asked): Body<Dated>) -> Responded {
    if let Some(flow) = Unit::iter().find(|unit| !unit.is_level() && asked.amounts[*unit] > 0) {
        return Err(ServiceProblem::Malformed(format!(
            "{flow} is used in a period and cannot be released: name documents or bytes"
        )));
    }
    let action = Action::Release { period: asked.period.0, amounts: asked.amounts };
    shared.apply("release", Command { operation, tenant: asked.tenant.0, action, at: asked.at }).await
}

impl Shared {
    /// A command is carried out to its end even if the client hangs up: what it has reserved must expire.
    async fn apply(self: Arc<Self>, action: &'static str, command: Command) -> Responded {
        let done = tokio::spawn(async move { self.carry_out(action, command).await });
        done.await.map_err(|_| ServiceProblem::Store(StoreError::Stopping))?
    }

    async fn carry_out(&self, action: &'static str, command: Command) -> Responded {
        let (operation, tenant) = (command.operation.clone(), command.tenant.clone());
        let interval = match command.action {
            Action::Reserve { expires_after, .. } => Some(expires_after),
            _ => None,
        };
        let answer = self.store.apply(command, self.clock.read().now).await;
        match (&answer, interval) {
            // Whether a commit whose answer was lost was done is not known. An operation that is not pending expires
            // without a trace. The other errors say that nothing was written. One that comes again after its end is not
            // awaited.
            (Ok(Answer::Reserved { pending: true, .. }) | Err(StoreError::Database(_)), Some(expires_after)) => {
                self.orphans.expect(Pending { operation, tenant, expires_after });
            }
            (Ok(Answer::Settled { .. } | Answer::Voided), _) => self.orphans.ended(&operation),
            _ => {}
        }
        let answer = answer.inspect_err(|_| self.count(action, "failed"))?;
        self.count(action, if matches!(answer, Answer::Refused(_)) { "refused" } else { "done" });
        respond(answer)
    }

    pub(super) fn count(&self, action: &'static str, outcome: &'static str) {
        let labels = crate::telemetry::CommandLabels { action, outcome };
        self.metrics.ledger_commands.get_or_create_owned(&labels).inc();
    }
}
