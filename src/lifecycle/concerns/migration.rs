//! Moves a tenant's data to another embedding model or region. Embeds it again into a new namespace while the old one
//! answers questions, switches in one write of the spec, and deletes the old namespace later. If something goes wrong,
//! the tenant stays on the old namespace.

use super::generations::{self, Look};
use crate::api::ConditionStatus;
use crate::api::conditions::DATA_MIGRATED;
use crate::api::migration::{EmbeddingSize, Migration, MigrationState as State};
use crate::api::plan::{Models, PlanSpec};
use crate::lifecycle::status::Draft;
use crate::lifecycle::{Decision, Effect, Input, MigrationError, ObservedMigration};

/// How far a move is, for a change that waits for it.
pub enum Advance {
    /// Do this next.
    Next(Decision),
    /// It goes on beside everything else.
    Working,
    /// It cannot come to an end.
    Hopeless(String),
    /// It is done, or there was nothing to do.
    Done,
}

impl Advance {
    fn next(decision: Option<Decision>) -> Self {
        decision.map_or(Self::Working, Self::Next)
    }
}

/// The place of data: its embedding model, and its region if each region has an index of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Home<'a> {
    /// The embedding model.
    pub embedding: &'a str,
    /// The region.
    pub region: Option<&'a str>,
}

impl<'a> Home<'a> {
    fn new(input: &Input, embedding: &'a str, region: Option<&'a str>) -> Self {
        Self { embedding, region: region.filter(|_| !input.policy.regions.is_empty()) }
    }

    fn of(migration: &'a Migration) -> Self {
        Self { embedding: &migration.embedding, region: migration.region.as_deref() }
    }

    fn record(self, generation: u32) -> Effect {
        Effect::RecordData {
            generation,
            embedding: self.embedding.to_owned(),
            region: self.region.map(ToOwned::to_owned),
        }
    }
}

impl std::fmt::Display for Home<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.embedding)?;
        self.region.map_or(Ok(()), |region| write!(f, " in {region}"))
    }
}

fn size(input: &Input) -> EmbeddingSize {
    input.tenant.spec.settings.embedding.unwrap_or_default()
}

/// Where the tenant's data would be in a plan.
pub fn in_plan<'a>(input: &Input, plan: &'a PlanSpec) -> Home<'a> {
    Home::new(input, plan.models.embedding_of(size(input)), Some(&plan.region))
}

/// Where the tenant's data is, once that is known.
pub fn there<'a>(input: &Input<'a>) -> Option<Home<'a>> {
    let (tenant, plan) = (input.tenant, input.plan);
    let region = tenant.region().or_else(|| plan.map(|plan| &*plan.region));
    tenant.embedding().map(|embedding| Home::new(input, embedding, region))
}

/// The models of the plan that is in force. Those of a Plan that were edited later are for new tenants.
fn models(input: &Input) -> Option<Models> {
    let known = &input.tenant.status.config.as_ref()?.models;
    Some(known.with_offer(input.plan.map(|plan| &plan.models)))
}

/// Whether the move that is under way, or has just ended, leads elsewhere.
pub fn is_busy(input: &Input, to: Home) -> bool {
    let migration = input.tenant.status.migration.as_deref();
    migration.is_some_and(|m| m.state != State::Failed && (Home::of(m) != to || is_switched(input, m)))
}

fn is_switched(input: &Input, migration: &Migration) -> bool {
    migration.generation == input.tenant.data_generation()
}

/// Decides about the data of an Active tenant, beside its other work.
pub fn follow(input: &Input) -> Option<Decision> {
    let migration = input.tenant.status.migration.as_deref();
    let is_over = migration.is_none_or(|m| m.state == State::Failed && generations::is_unclear(input));
    if is_over || input.tenant.chosen.is_some() {
        match generations::follow(input) {
            Look::Clear => {}
            Look::Next(decision) => return Some(decision),
            Look::Unclear => return None,
        }
    }
    let models = models(input)?;
    let region = input.plan.map(|plan| &*plan.region).or(input.tenant.region());
    let wanted = Home::new(input, models.embedding_of(size(input)), region);
    if let Some(migration) = input.tenant.status.migration.as_deref() {
        if is_switched(input, migration) {
            return switched(input, migration);
        }
        if Home::of(migration) != wanted {
            return discard(input, migration);
        }
        if migration.state == State::Failed && migration.retry_token == input.tenant.retry_token {
            return None;
        }
    }
    match copy(input, wanted) {
        Advance::Next(decision) => Some(decision),
        Advance::Working => None,
        Advance::Hopeless(why) => fail(input, &why),
        Advance::Done => match switch(input, wanted) {
            Advance::Next(decision) => Some(decision),
            Advance::Working => None,
            Advance::Hopeless(why) => fail(input, &why),
            Advance::Done => offered(input, &models),
        },
    }
}

/// Embeds everything again, beside the old vectors.
pub fn copy(input: &Input, to: Home) -> Advance {
    let tenant = input.tenant;
    let Some(there) = there(input).filter(|there| *there != to) else { return Advance::Done };
    let Some(migration) = tenant.status.migration.as_deref() else {
        return begin(input, there, to);
    };
    if is_switched(input, migration) {
        return Advance::next(switched(input, migration));
    }
    if Home::of(migration) != to {
        return Advance::next(discard(input, migration));
    }
    match migration.state {
        State::Copying => copying(input, migration),
        State::Copied | State::Switching | State::Switched => Advance::Done,
        State::Failed => begin(input, there, to),
    }
}

/// Writes the place of the vectors into the spec before there are others, so that a lost status does not lose it.
fn begin(input: &Input, there: Home, to: Home) -> Advance {
    if let Some(record) = record(input, there) {
        return Advance::Next(record);
    }
    // A copy makes its target like its source: a namespace that already holds documents is no target.
    match generations::settle(input) {
        Look::Clear => {}
        Look::Next(decision) => return Advance::Next(decision),
        Look::Unclear => return Advance::Working,
    }
    let migration = Migration {
        generation: input.tenant.data_generation() + 1,
        embedding: to.embedding.into(),
        region: to.region.map(Into::into),
        state: State::Copying,
        started_at: input.now,
        since: input.now,
        vectors: 0,
        retry_token: None,
    };
    let message = if there.region == to.region {
        format!("Embedding the tenant's documents with {to}; {there} answers meanwhile")
    } else {
        format!("Copying the tenant's documents to {to}; {there} answers meanwhile")
    };
    Advance::next(note(input, migration, ConditionStatus::False, "Copying", &message))
}

fn copying(input: &Input, migration: &Migration) -> Advance {
    let Some(seen) = input.observed.migration.as_ref().filter(|seen| !seen.last) else {
        return Advance::Next(Decision::Act(vec![effect(migration, false)]));
    };
    let migration = Migration { vectors: seen.vectors, ..migration.clone() };
    if seen.done {
        let copied = Migration { state: State::Copied, since: input.now, ..migration };
        let message = format!("{} vectors are embedded with {}", copied.vectors, copied.embedding);
        return Advance::next(note(input, copied, ConditionStatus::False, "Copied", &message));
    }
    match &seen.problem {
        Some(problem) if is_hopeless(input, &migration, problem) => Advance::Hopeless(problem.message.clone()),
        Some(problem) => {
            let message = format!("{}. Retrying", problem.message);
            Advance::next(note(input, migration, ConditionStatus::False, "Retrying", &message))
        }
        None => {
            let message = format!("{} vectors are embedded with {}", migration.vectors, migration.embedding);
            Advance::next(note(input, migration, ConditionStatus::False, "Copying", &message))
        }
    }
}

fn is_hopeless(input: &Input, migration: &Migration, problem: &MigrationError) -> bool {
    !problem.retryable || input.now.since(migration.started_at) >= input.policy.migration_limit
}

fn effect(migration: &Migration, last: bool) -> Effect {
    Effect::Migrate {
        generation: migration.generation,
        embedding: migration.embedding.to_string(),
        region: migration.region.as_ref().map(ToString::to_string),
        last,
    }
}

/// Copies what changed meanwhile, while uploads wait, and lets the new vectors answer.
pub fn switch(input: &Input, to: Home) -> Advance {
    if there(input).is_none_or(|there| there == to) {
        return Advance::Done;
    }
    let Some(migration) = input.tenant.status.migration.as_deref() else { return Advance::Working };
    if migration.state != State::Switching {
        let switching = Migration { state: State::Switching, since: input.now, ..migration.clone() };
        let message = "Copying what changed meanwhile; uploads wait for it";
        return Advance::next(note(input, switching, ConditionStatus::False, "Switching", message));
    }
    let Some(seen) = input.observed.migration.as_ref().filter(|seen| seen.last) else {
        return Advance::Next(Decision::Act(vec![effect(migration, true)]));
    };
    if seen.done {
        // What the new generation holds at the switch, written down before it: the old one goes only if it holds no
        // more.
        let complete = Migration { vectors: seen.vectors, ..migration.clone() };
        let message = format!("{} vectors are embedded with {}; switching to them", seen.vectors, migration.embedding);
        let noted = note(input, complete, ConditionStatus::False, "Switching", &message);
        let record = Decision::Act(vec![Home::of(migration).record(migration.generation)]);
        return Advance::Next(noted.filter(|_| migration.vectors != seen.vectors).unwrap_or(record));
    }
    let (reason, message) = match &seen.problem {
        // Uploads do not wait for a switch that cannot happen.
        Some(problem) if problem.ahead => return Advance::Hopeless(problem.message.clone()),
        Some(problem) => ("Retrying", format!("{}. Retrying; uploads wait for it", problem.message)),
        None => ("Switching", "Copying what changed meanwhile; uploads wait for it".to_owned()),
    };
    Advance::next(note(input, migration.clone(), ConditionStatus::False, reason, &message))
}

/// Queries use the new vectors. The controller keeps the old ones for a while, because requests that began before still
/// read them. Until it deletes them, no other move begins.
fn switched(input: &Input, migration: &Migration) -> Option<Decision> {
    let message = format!("All documents are embedded with {}", Home::of(migration));
    if migration.state != State::Switched {
        let switched = Migration { state: State::Switched, since: input.now, ..migration.clone() };
        return note(input, switched, ConditionStatus::True, "Migrated", &message);
    }
    if left(input, migration) > 0 {
        return None;
    }
    forget(input, migration.generation.saturating_sub(1), |draft| {
        draft.condition(DATA_MIGRATED, ConditionStatus::True, "Migrated", &message);
    })
}

fn left(input: &Input, migration: &Migration) -> i64 {
    input.until(migration.since.plus(input.policy.migration_overlap))
}

/// Ends a move that is no longer wanted. Uploads do not wait for it, even if its copy is kept until an admin chooses.
fn discard(input: &Input, migration: &Migration) -> Option<Decision> {
    let forgotten = forget(input, migration.generation, |draft| {
        draft.forget(DATA_MIGRATED);
    });
    if forgotten.is_some() || migration.state == State::Failed {
        return forgotten;
    }
    let ended = Migration { state: State::Failed, since: input.now, ..migration.clone() };
    let message = "The move is no longer wanted. Its copy is kept: the condition DataInOnePlace says why";
    note(input, ended, ConditionStatus::False, "Failed", message)
}

/// Deletes the vectors of a generation, and then the record of the move.
fn forget(input: &Input, generation: u32, say: impl FnOnce(&mut Draft)) -> Option<Decision> {
    match generations::drop(input, generation) {
        Look::Clear => {}
        Look::Next(decision) => return Some(decision),
        Look::Unclear => return None,
    }
    let mut draft = Draft::new(input);
    draft.status.migration = None;
    say(&mut draft);
    draft.changed()
}

/// Ends a move that cannot succeed. Questions are answered from the namespace in use, and uploads go there. The copy is
/// deleted, unless it holds documents of its own: then `DataInOnePlace` is False until an admin chooses.
pub fn fail(input: &Input, why: &str) -> Option<Decision> {
    let migration = input.tenant.status.migration.as_deref()?;
    match generations::drop(input, migration.generation) {
        Look::Clear | Look::Unclear => {}
        Look::Next(decision) => return Some(decision),
    }
    let there = there(input).map(|there| there.to_string()).unwrap_or_default();
    let message = format!(
        "The documents stay embedded with {there}: {why}. To try again, fix the cause and run `kubectl tenant retry {}`; to stay \
         with {there}, change spec.settings.embedding back",
        input.tenant.name
    );
    let retry_token = input.tenant.retry_token.clone();
    let failed = Migration { state: State::Failed, since: input.now, retry_token, ..migration.clone() };
    note(input, failed, ConditionStatus::False, "Failed", &message)
}

/// Shows an embedding choice that the plan does not offer.
fn offered(input: &Input, models: &Models) -> Option<Decision> {
    let plan = input.tenant.plan_in_force();
    let mut draft = Draft::new(input);
    if size(input) == EmbeddingSize::Large && models.embedding_large.is_none() {
        let message = format!(
            "Plan {plan} has no large embedding model. Set models.embeddingLarge on the Plan, or remove spec.settings.embedding"
        );
        draft.condition(DATA_MIGRATED, ConditionStatus::False, "NotInPlan", &message);
    } else if !draft.withdraw(DATA_MIGRATED) {
        return None;
    }
    draft.changed()
}

/// Keeps the place of the data in the spec if the plan would have it elsewhere, so that it outlives a change of the
/// plan.
pub fn pin(input: &Input, plan: &PlanSpec) -> Option<Decision> {
    let usual = Home::new(input, &plan.models.embedding, Some(&plan.region));
    record(input, there(input).filter(|there| *there != usual)?)
}

/// Writes the place of the data into the spec, unless it is there already.
fn record(input: &Input, there: Home) -> Option<Decision> {
    let data = input.tenant.spec.data.as_ref();
    let known = data.is_some_and(|data| data.region.is_some() || there.region.is_none());
    (!known).then(|| Decision::Act(vec![there.record(input.tenant.data_generation())]))
}

fn note(input: &Input, migration: Migration, status: ConditionStatus, reason: &str, message: &str) -> Option<Decision> {
    let mut draft = Draft::new(input);
    draft.condition(DATA_MIGRATED, status, reason, message);
    draft.status.migration = Some(Box::new(migration));
    draft.status.namespace = Some(input.tenant.data_namespace());
    draft.changed()
}

/// Seconds until the old vectors are deleted, or until it is looked again which namespaces hold documents.
pub fn wait(input: &Input) -> Option<i64> {
    let again = generations::is_unclear(input).then_some(input.policy.resync);
    old_vectors(input).into_iter().chain(again).min()
}

fn old_vectors(input: &Input) -> Option<i64> {
    let migration = input.tenant.status.migration.as_deref().filter(|m| is_switched(input, m))?;
    Some(left(input, migration)).filter(|left| *left > 0)
}

impl ObservedMigration {
    /// One that begins.
    pub fn begun(last: bool) -> Self {
        Self { vectors: 0, problem: None, done: false, last }
    }
}
