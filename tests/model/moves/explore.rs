//! The world of moves as stateright explores it: what may happen next, what must always hold, and which mistakes it
//! catches.

use std::collections::{BTreeMap, BTreeSet};

use stateright::{Checker, Model, Property};
use tenant_operator::api::migration::{EmbeddingSize, MigrationState};
use tenant_operator::api::status::PlanConfig;
use tenant_operator::api::tenant::BillingMode;
use tenant_operator::api::{Phase, TenantStatus, Timestamp};
use tenant_operator::lifecycle::Notice;

use super::{Action, Budget, Mistake, Moves, State, US, Vectors};
use crate::world::{self, LARGER, SMALLER, Small};

impl Model for Moves {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let small = Small::new(BillingMode::Manual, world::Budget::default());
        let mut tenant = small.init_states().remove(0).tenant().clone();
        let at = Timestamp::from_second(1_000_000);
        tenant.finalizer = true;
        (tenant.credentials.proof, tenant.credentials.labelled) = (true, true);
        tenant.spec.tenant_id = Some("t".into());
        tenant.sent = BTreeSet::from([Notice::Welcome.key()]);
        tenant.status = TenantStatus {
            phase: Some(Phase::Active),
            region: Some(US.into()),
            config: Some(PlanConfig::of(SMALLER, &self.plans[0])),
            paid_at: Some(at),
            provisioned_at: Some(at),
            ..TenantStatus::default()
        };
        let there = Vectors { embedding: self.plans[0].models.embedding.to_string(), region: US.into(), documents: 1 };
        vec![State {
            tenant,
            before: None,
            reconcile: None,
            now: at.as_second(),
            budget: self.budget,
            namespaces: BTreeMap::from([(1, there)]),
            documents: 1,
            task: None,
            restored: false,
        }]
    }

    fn actions(&self, s: &State, actions: &mut Vec<Action>) {
        let mut may = |allowed: bool, action: Action| actions.extend(allowed.then_some(action));
        let b = s.budget;
        let migration = s.tenant.status.migration.as_ref();
        let switching = migration.is_some_and(|m| m.state == MigrationState::Switching);
        let switched = migration.is_some_and(|m| m.state == MigrationState::Switched);
        let waits = switching && self.mistake != Some(Mistake::UploadsGoOn);
        let active = s.tenant.status.phase == Some(Phase::Active);
        let served = s.tenant.status.phase.is_some_and(Phase::is_served);
        // If the status is lost before the controller saw the request for another plan, the plan in force is lost with
        // it, and nothing else tells which model embedded the data.
        let told =
            s.tenant.spec.data.is_some() || migration.is_some() || s.tenant.spec.plan == s.tenant.plan_in_force();
        may(b.choices > 0, Action::Choose);
        may(b.wishes > 0 && active, Action::Wish);
        may(b.uploads > 0 && served && !waits && !s.restored, Action::Upload);
        may(b.restores > 0, Action::RestoreBackup);
        may(b.wipes > 0 && served && told, Action::WipeStatus);
        may(s.task.as_ref().is_some_and(|task| !task.done), Action::Copy);
        may(switched, Action::Pass);
        match &s.reconcile {
            None => {
                may(true, Action::Start);
                may(b.stale > 0 && s.before.is_some(), Action::StartStale);
            }
            Some(reconcile) => {
                may(b.crashes > 0, Action::Crash);
                may(reconcile.pending.is_empty(), Action::Decide);
                for effect in &reconcile.pending {
                    may(true, Action::Do(effect.clone()));
                    may(b.faults > 0, Action::LoseAnswer(effect.clone()));
                }
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut s = last.clone();
        match action {
            Action::Start => s.start(s.tenant.clone()),
            Action::StartStale => {
                s.budget.stale -= 1;
                let view = s.before.clone()?;
                s.start(*view);
            }
            Action::Decide => drop(self.advance(&mut s)),
            Action::Do(effect) => self.perform(&mut s, &effect, true),
            Action::LoseAnswer(effect) => {
                s.budget.faults -= 1;
                self.perform(&mut s, &effect, false);
            }
            Action::Crash => {
                s.budget.crashes -= 1;
                (s.reconcile, s.task) = (None, None);
            }
            Action::Copy => s.copy(),
            Action::Pass => s.pass(&self.policy),
            Action::Choose => {
                s.budget.choices -= 1;
                let other = s.tenant.spec.settings.embedding.xor(Some(EmbeddingSize::Large));
                s.tenant.spec.settings.embedding = other;
                s.overtake();
            }
            Action::Wish => {
                s.budget.wishes -= 1;
                let other = if s.tenant.spec.plan == LARGER { SMALLER } else { LARGER };
                s.tenant.spec.plan = other.into();
                s.overtake();
            }
            Action::Upload => {
                s.budget.uploads -= 1;
                s.documents += 1;
                s.namespaces.get_mut(&s.tenant.data_generation())?.documents += 1;
            }
            Action::RestoreBackup => {
                s.budget.restores -= 1;
                s.restored = true;
                s.tenant = self.init_states().remove(0).tenant;
                s.overtake();
            }
            Action::WipeStatus => {
                s.budget.wipes -= 1;
                s.tenant.status = TenantStatus::default();
                s.overtake();
            }
        }
        Some(s)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("every document is where questions look", |_, s: &State| {
                let there = s.namespaces.get(&s.tenant.data_generation());
                s.restored || there.is_some_and(|there| there.documents == s.documents)
            }),
            Property::always("no document is lost", |_, s: &State| {
                s.namespaces.values().any(|there| there.documents == s.documents)
            }),
            Property::always("questions are asked of the model and region that the data has", |_, s: &State| {
                let there = s.namespaces.get(&s.tenant.data_generation());
                // A restored object may name a namespace that is gone, until the controller has looked.
                let known = s.tenant.status.config.is_some() && !(s.restored && there.is_none());
                !known
                    || there.is_some_and(|there| {
                        s.tenant.embedding() == Some(&there.embedding) && s.tenant.region() == Some(&there.region)
                    })
            }),
            Property::always("at most three namespaces", |_, s: &State| s.namespaces.len() <= 3),
            Property::always("the data is in one place in the end, and in the right one", |model: &Self, s: &State| {
                model.converges(s)
            }),
            Property::sometimes("data is moved", |_, s: &State| s.tenant.data_generation() > 1),
        ]
    }
}

fn explore(name: &str, budget: Budget) {
    let checker = Moves::new(budget).checker().spawn_bfs().join();
    println!("{name}: {} states explored, {} distinct", checker.state_count(), checker.unique_state_count());
    for (property, path) in checker.discoveries() {
        if property != "data is moved" {
            let last = path.last_state().clone();
            panic!("{property} does not hold after {:?}\n{last:#?}", path.into_actions());
        }
    }
    assert!(checker.discovery("data is moved").is_some(), "a world in which nothing moves proves nothing");
}

#[test]
fn data_moves_to_another_model_and_back() {
    let budget = Budget { crashes: 1, faults: 1, stale: 1, choices: 2, uploads: 1, ..Budget::default() };
    explore("another model and back", budget);
}

#[test]
fn data_moves_to_another_region_with_a_plan() {
    let budget = Budget { crashes: 1, stale: 1, wishes: 2, uploads: 1, ..Budget::default() };
    explore("another region and back", budget);
    explore("another region and model", Budget { wishes: 1, choices: 1, uploads: 1, ..Budget::default() });
}

#[test]
fn data_is_where_it_was_after_a_lost_status() {
    let budget = Budget { crashes: 1, wipes: 1, choices: 2, uploads: 1, ..Budget::default() };
    explore("lost status", budget);
    explore("lost status, another region", Budget { wipes: 1, wishes: 1, stale: 1, ..Budget::default() });
}

#[test]
fn a_restored_backup_loses_no_documents() {
    let budget = Budget { restores: 1, choices: 1, uploads: 1, crashes: 1, ..Budget::default() };
    explore("restored backup", budget);
    explore("restored backup, stale", Budget { restores: 1, choices: 2, stale: 1, ..Budget::default() });
}

#[test]
fn mistakes_of_moves_are_caught() {
    const FOUND: &str = "every document is where questions look";
    const ASKED: &str = "questions are asked of the model and region that the data has";
    const STABLE: &str = "the data is in one place in the end, and in the right one";
    const KEPT: &str = "no document is lost";
    let choosing = Budget { stale: 1, choices: 2, uploads: 1, ..Budget::default() };
    let wishing = Budget { wishes: 2, uploads: 1, ..Budget::default() };
    let wiping = Budget { wipes: 1, choices: 1, wishes: 1, ..Budget::default() };
    let restoring = Budget { restores: 1, choices: 1, ..Budget::default() };
    for (mistake, budget, property) in [
        (Mistake::LastPassForgotten, choosing, FOUND),
        (Mistake::UploadsGoOn, choosing, FOUND),
        (Mistake::OldHomeForgotten, wiping, ASKED),
        (Mistake::RegionForgotten, wishing, ASKED),
        (Mistake::OldVectorsKept, choosing, STABLE),
        (Mistake::SwitchUnseen, choosing, STABLE),
        (Mistake::LeftoverUnseen, wiping, STABLE),
        (Mistake::UnknownDeleted, restoring, KEPT),
        (Mistake::BackupBelieved, restoring, KEPT),
    ] {
        let model = Moves { mistake: Some(mistake), ..Moves::new(budget) };
        let any = stateright::HasDiscoveries::AnyOf([property].into());
        let checker = model.checker().finish_when(any).spawn_bfs().join();
        assert!(checker.discovery(property).is_some(), "{mistake:?} was not caught by {property:?}");
        println!("{mistake:?}: caught by {property:?} after {} states", checker.unique_state_count());
    }
}
