//! Moves of a tenant's data, explored in a world of their own: an Active tenant that changes its embedding model and
//! its plan's region at any moment, stores documents meanwhile, and a controller that dies, reads what is old, and
//! loses the status.

mod explore;

use std::collections::{BTreeMap, BTreeSet};

use tenant_operator::api::migration::{Data, MigrationState};
use tenant_operator::api::plan::{Downgrades, Models};
use tenant_operator::api::tenant::BillingMode;
use tenant_operator::api::{ConditionStatus, Phase, PlanSpec, TenantStatus, Timestamp, conditions};
use tenant_operator::lifecycle::{
    Blame, Decision, Effect, Failure, Found, Input, Notice, Observed, ObservedMigration, Outcome, Policy, Reason, Step,
    View, decide,
};

use crate::converged::Converged;
use crate::world::{self, LARGER, Small};

const US: &str = "us-east-1";
const EU: &str = "eu-central-1";
const LARGE: &str = "text-embedding-3-large";

/// How often each thing may happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Budget {
    crashes: u8,
    /// An effect is done, and its answer lost.
    faults: u8,
    /// A reconcile starts from the object as it was before the last write.
    stale: u8,
    /// The status is lost.
    wipes: u8,
    /// The customer chooses the other embedding model.
    choices: u8,
    /// The customer chooses the plan of the other region.
    wishes: u8,
    /// The customer stores a document.
    uploads: u8,
    /// The object is restored from the backup that was made first.
    restores: u8,
}

/// Mistakes that one could make, each of which is caught.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mistake {
    /// Nothing is copied after uploads have stopped.
    LastPassForgotten,
    /// Uploads go on while the last pass runs.
    UploadsGoOn,
    /// The place of the data is not written into the spec before a move begins.
    OldHomeForgotten,
    /// The copy stays in the old region.
    RegionForgotten,
    /// The old vectors stay for ever.
    OldVectorsKept,
    /// The new vectors answer, and the status does not say so.
    SwitchUnseen,
    /// What a lost status forgot is never found.
    LeftoverUnseen,
    /// A namespace that the object does not know is deleted.
    UnknownDeleted,
    /// A restored object is served from the namespace that it names, even if the data is in another one.
    BackupBelieved,
}

/// Vectors in one namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Vectors {
    embedding: String,
    region: String,
    documents: u8,
}

/// What copies in the background, and dies with the controller.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Task {
    generation: u32,
    embedding: String,
    region: String,
    last: bool,
    done: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Reconcile {
    view: View,
    observed: Observed,
    pending: BTreeSet<Effect>,
    overtaken: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    tenant: View,
    before: Option<Box<View>>,
    reconcile: Option<Box<Reconcile>>,
    now: i64,
    budget: Budget,
    /// By generation.
    namespaces: BTreeMap<u32, Vectors>,
    /// How many documents the customer has stored.
    documents: u8,
    task: Option<Task>,
    /// Whether the object was restored from a backup.
    restored: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Action {
    Start,
    StartStale,
    Decide,
    Do(Effect),
    LoseAnswer(Effect),
    Crash,
    /// The task has compared everything.
    Copy,
    Choose,
    Wish,
    Upload,
    WipeStatus,
    RestoreBackup,
    /// The time for which the old vectors are kept is over.
    Pass,
}

struct Moves {
    budget: Budget,
    mistake: Option<Mistake>,
    plans: [PlanSpec; 2],
    policy: Policy,
    converged: Converged,
}

impl Moves {
    fn new(budget: Budget) -> Self {
        let small = Small::new(BillingMode::Manual, world::Budget::default());
        let models = Models { embedding_large: Some(LARGE.into()), ..Models::default() };
        let plan = PlanSpec { region: US.into(), downgrades: Downgrades::Immediately, models, ..small.plan };
        let other = PlanSpec { region: EU.into(), monthly_price: small.larger.monthly_price, ..plan.clone() };
        let policy = Policy {
            regions: [US, EU].map(str::to_owned).into_iter().collect(),
            nudge_after: 0,
            outbox: false,
            migration_limit: i64::MAX,
            ..small.policy
        };
        Self { budget, mistake: None, plans: [plan, other], policy, converged: Converged::default() }
    }

    fn plan(&self, name: &str) -> &PlanSpec {
        &self.plans[usize::from(name == LARGER)]
    }

    fn decide(&self, state: &State, reconcile: &Reconcile) -> Decision {
        let (mut view, mut observed) = (reconcile.view.clone(), reconcile.observed.clone());
        match self.mistake {
            Some(Mistake::LastPassForgotten) => {
                if let Some(migration) = view.status.migration.as_ref().filter(|m| m.state == MigrationState::Switching)
                {
                    let vectors = migration.vectors;
                    observed.migration = Some(ObservedMigration { vectors, problem: None, done: true, last: true });
                }
            }
            Some(Mistake::OldHomeForgotten) if view.spec.data.is_none() => {
                let there = Data { generation: 1, embedding: "".into(), region: Some("".into()) };
                let embedding = view.embedding().unwrap_or_default().into();
                let region = view.region().map(Into::into);
                view.spec.data = Some(Data { embedding, region, ..there });
            }
            Some(Mistake::LeftoverUnseen) => observed.leftover = None,
            Some(Mistake::UnknownDeleted) => {
                if let Some(generation) = observed.leftover {
                    let delete = Effect::DropNamespace { generation };
                    if !observed.done.contains(&delete) {
                        return Decision::Act(vec![delete]);
                    }
                }
            }
            Some(Mistake::BackupBelieved) => {
                for found in observed.found.iter_mut().flatten().filter(|f| f.generation != view.data_generation()) {
                    found.documents = false;
                }
            }
            _ => {}
        }
        let (plan, wanted) = (Some(self.plan(view.plan_in_force())), Some(self.plan(&view.spec.plan)));
        let now = Timestamp::from_second(state.now);
        let decision = decide(&Input {
            tenant: &view,
            plan,
            wanted,
            observed: &observed,
            now,
            earliest: now,
            policy: &self.policy,
        });
        match (self.mistake, decision) {
            (Some(Mistake::OldVectorsKept), Decision::Act(effects))
                if matches!(effects[..], [Effect::DropNamespace { .. }]) =>
            {
                Decision::Wait(None)
            }
            (Some(Mistake::SwitchUnseen), Decision::Record(status))
                if status.migration.as_ref().is_some_and(|m| m.state == MigrationState::Switched) =>
            {
                Decision::Wait(None)
            }
            (_, decision) => decision,
        }
    }

    /// The controller's next move.
    fn advance(&self, state: &mut State) -> bool {
        let Some(reconcile) = state.reconcile.clone() else {
            state.start(state.tenant.clone());
            return true;
        };
        if let Some(effect) = reconcile.pending.iter().next().cloned() {
            self.perform(state, &effect, true);
            return true;
        }
        match self.decide(state, &reconcile) {
            Decision::Act(effects) => {
                if let Some(reconcile) = &mut state.reconcile {
                    reconcile.pending = effects.into_iter().collect();
                }
                true
            }
            Decision::Record(status) => {
                state.write(&reconcile, *status);
                true
            }
            Decision::Wait(_) => {
                state.reconcile = None;
                false
            }
        }
    }

    fn perform(&self, state: &mut State, effect: &Effect, answered: bool) {
        let Some(reconcile) = state.reconcile.clone() else { return };
        if let Effect::RecordData { generation, embedding, region } = effect {
            let data = Data {
                generation: *generation,
                embedding: embedding.as_str().into(),
                region: region.as_deref().map(Into::into),
            };
            return state.write_object(&reconcile, answered, |tenant| tenant.spec.data = Some(data));
        }
        if let Effect::RecordPlan { plan } = effect {
            return state.write_object(&reconcile, answered, |t| t.spec.plan_in_force = Some(plan.clone()));
        }
        if let Effect::MarkSent(sent) = effect {
            return state.write_object(&reconcile, answered, |t| t.sent.extend(sent.iter().map(Notice::key)));
        }
        if let Effect::ServeFrom { generation } = effect {
            let Some(there) = state.namespaces.get(generation).cloned() else { return state.reconcile = None };
            let (embedding, region) = (there.embedding.as_str().into(), Some(there.region.as_str().into()));
            let data = Data { generation: *generation, embedding, region };
            state.write_object(&reconcile, answered, |tenant| tenant.spec.data = Some(data));
            if let Some(reconcile) = &mut state.reconcile {
                reconcile.observed.learn(effect, Outcome::Done);
            }
            return;
        }
        if *effect == Effect::ForgetChoice {
            return state.write_object(&reconcile, answered, |tenant| tenant.chosen = None);
        }
        let outcome = self.change(state, &reconcile.observed, effect);
        if !answered {
            // The controller learns nothing of it, and looks again.
            state.reconcile = None;
        } else if let Some(reconcile) = &mut state.reconcile {
            reconcile.pending.remove(effect);
            reconcile.observed.learn(effect, outcome);
        }
    }

    fn change(&self, state: &mut State, observed: &Observed, effect: &Effect) -> Outcome {
        match effect {
            Effect::Migrate { generation, embedding, region, last } => {
                let region = if self.mistake == Some(Mistake::RegionForgotten) { None } else { region.clone() };
                let to = Task {
                    generation: *generation,
                    embedding: embedding.clone(),
                    region: region.unwrap_or_else(|| state.tenant.region().unwrap_or_default().to_owned()),
                    last: *last,
                    done: false,
                };
                let same = state.task.as_ref().filter(|task| Task { done: false, ..(*task).clone() } == to).cloned();
                let task = state.task.insert(same.unwrap_or(to));
                let seen = ObservedMigration { vectors: 0, problem: None, done: task.done, last: task.last };
                return Outcome::Migration(seen);
            }
            Effect::DropNamespace { generation } => {
                state.task = None;
                let seen =
                    observed.found.iter().flatten().find(|f| f.generation == *generation).map_or(0, |f| f.vectors);
                let there = state.namespaces.get(generation).map_or(0, |there| there.documents);
                // `steps/data.rs` counts again.
                if u64::from(there) > seen && self.mistake != Some(Mistake::UnknownDeleted) {
                    return Outcome::Failed(changed());
                }
                // The namespace in use is not deleted, even if that was decided: `steps/data.rs` checks first.
                if *generation != state.tenant.data_generation() {
                    state.namespaces.remove(generation);
                }
            }
            Effect::FindData => {
                state.task = None;
                return Outcome::Found(state.found());
            }
            _ => {}
        }
        Outcome::Done
    }

    fn converges(&self, state: &State) -> bool {
        let mut s = state.clone();
        let mut run = self.converged.run();
        let mut quiet = 0;
        for _ in 0..120 {
            let before = (s.tenant.clone(), s.namespaces.clone(), s.task.clone());
            for step in 0.. {
                // Neither matters to what follows.
                (s.before, s.budget) = (None, Budget::default());
                if let Some(well) = run.comes_to(&s) {
                    return run.ends(well);
                }
                if step > 200 {
                    return run.ends(false);
                }
                if !self.advance(&mut s) {
                    break;
                }
            }
            s.copy();
            s.pass(&self.policy);
            quiet = if (s.tenant.clone(), s.namespaces.clone(), s.task.clone()) == before { quiet + 1 } else { 0 };
            if quiet == 3 && s.is_unclear() && s.tenant.chosen.is_none() {
                s.choose();
                quiet = 0;
            }
            if quiet == 3 {
                return run.ends(self.desired(&s));
            }
        }
        run.ends(false)
    }

    fn desired(&self, s: &State) -> bool {
        let plan = self.plan(&s.tenant.spec.plan);
        let model = plan.models.embedding_of(s.tenant.spec.settings.embedding.unwrap_or_default());
        let there = s.namespaces.get(&s.tenant.data_generation());
        s.tenant.status.phase == Some(Phase::Active)
            && s.tenant.plan_in_force() == s.tenant.spec.plan
            && s.tenant.status.migration.is_none()
            && s.namespaces.len() == 1
            && there.is_some_and(|there| there.embedding == **model && there.region == *plan.region)
            && there.is_some_and(|there| there.documents == s.documents)
            && !s.is_unclear()
    }
}

impl State {
    fn start(&mut self, view: View) {
        let in_use = view.data_generation();
        let forgotten = view.status.migration.is_none() && view.status.phase == Some(Phase::Active);
        let leftover = self.namespaces.keys().copied().rfind(|generation| forgotten && *generation != in_use);
        let observed = Observed { api_key: Some(true), leftover, ..Observed::default() };
        self.reconcile = Some(Box::new(Reconcile { view, observed, pending: BTreeSet::new(), overtaken: false }));
    }

    fn write(&mut self, reconcile: &Reconcile, status: TenantStatus) {
        if reconcile.overtaken || reconcile.view != self.tenant {
            self.reconcile = None;
            return;
        }
        self.before = Some(Box::new(self.tenant.clone()));
        if let Some(now) = &mut self.reconcile {
            now.observed.recorded(&reconcile.view.status, &status);
            now.view.status = status.clone();
        }
        self.tenant.status = status;
    }

    fn write_object(&mut self, reconcile: &Reconcile, answered: bool, change: impl FnOnce(&mut View)) {
        if reconcile.overtaken || reconcile.view != self.tenant {
            self.reconcile = None;
            return;
        }
        self.before = Some(Box::new(self.tenant.clone()));
        change(&mut self.tenant);
        let tenant = self.tenant.clone();
        match &mut self.reconcile {
            Some(now) if answered => {
                now.pending.clear();
                now.view = tenant;
            }
            reconcile => *reconcile = None,
        }
    }

    fn overtake(&mut self) {
        if let Some(reconcile) = &mut self.reconcile {
            reconcile.overtaken = true;
        }
    }

    /// The namespaces as Pinecone lists them.
    fn found(&self) -> Vec<Found> {
        let found = |(generation, there): (&u32, &Vectors)| Found {
            generation: *generation,
            vectors: there.documents.into(),
            documents: there.documents > 0,
        };
        self.namespaces.iter().map(found).collect()
    }

    fn is_unclear(&self) -> bool {
        let shown = conditions::get(&self.tenant.status.conditions, conditions::DATA_IN_ONE_PLACE);
        shown.is_some_and(|condition| condition.status == ConditionStatus::False)
    }

    /// A person reads the counts and chooses the generation that holds the most documents.
    fn choose(&mut self) {
        let in_use = self.tenant.data_generation();
        let best = self.namespaces.iter().max_by_key(|(generation, there)| (there.documents, **generation == in_use));
        self.tenant.chosen = best.map(|(generation, _)| *generation);
    }

    /// Whether the task may go on: it looks whether its move is still wanted.
    fn is_wanted(&self, task: &Task) -> bool {
        let state = if task.last { MigrationState::Switching } else { MigrationState::Copying };
        let migration = self.tenant.status.migration.as_ref();
        let served = self.tenant.status.phase.is_some_and(Phase::is_served);
        served
            && migration
                .is_some_and(|m| (m.generation, m.state) == (task.generation, state) && *m.embedding == *task.embedding)
    }

    fn copy(&mut self) {
        let Some(task) = self.task.clone().filter(|task| !task.done) else { return };
        if !self.is_wanted(&task) {
            self.task = None;
            return;
        }
        let Task { generation, embedding, region, .. } = task;
        let documents = self.namespaces.get(&self.tenant.data_generation()).map_or(0, |there| there.documents);
        self.namespaces.insert(generation, Vectors { embedding, region, documents });
        if let Some(task) = &mut self.task {
            task.done = true;
        }
    }

    fn pass(&mut self, policy: &Policy) {
        if let Some(migration) = self.tenant.status.migration.as_ref().filter(|m| m.state == MigrationState::Switched) {
            self.now = self.now.max(migration.since.plus(policy.migration_overlap).as_second());
        }
    }
}

/// A namespace holds more than was counted before.
fn changed() -> Failure {
    Failure {
        step: Step::Data,
        reason: Reason::DataChanged,
        message: "It holds more than before".into(),
        blame: Blame::Call,
        retryable: true,
        retry_after: None,
    }
}
