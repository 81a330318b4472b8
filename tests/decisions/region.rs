//! A region for each index: a plan of an unknown one sells nothing, and a move to a plan of another one takes the data
//! along.

use tenant_operator::api::conditions::get;
use tenant_operator::api::migration::{Data, MigrationState as State};
use tenant_operator::api::status::PlanChangeState;
use tenant_operator::api::{Phase, TenantStatus};
use tenant_operator::lifecycle::{Effect, Notice, ObservedMigration, Regions};

use crate::case::{Case, fails, holds, plan};
use crate::migration::{found, moving, paid};
use crate::plan_change::{noted, wishing};

const MODEL: &str = "text-embedding-3-small";
const US: &str = "us-east-1";
const EU: &str = "eu-central-1";

fn regions() -> Regions {
    [US, EU].map(str::to_owned).into_iter().collect()
}

/// In a change to a plan of the other region.
fn moving_abroad() -> Case {
    let mut case = noted(wishing(Phase::Upgrading, 19_900), PlanChangeState::Running);
    case.wanted.as_mut().expect("a plan").region = EU.into();
    case.policy.regions = regions();
    case
}

fn data(mut case: Case, generation: u32, region: Option<&str>) -> Case {
    case.view.spec.data = Some(Data { generation, embedding: MODEL.into(), region: region.map(Into::into) });
    found(case, &[(generation, 10, true)])
}

fn migration(case: Case, region: Option<&str>, state: State) -> Case {
    let mut case = moving(case, 2, state);
    let migration = case.view.status.migration.as_mut().expect("there");
    (migration.embedding, migration.region) = (MODEL.into(), region.map(Into::into));
    case
}

fn record(generation: u32, region: &str) -> Effect {
    Effect::RecordData { generation, embedding: MODEL.into(), region: Some(region.into()) }
}

fn copy(last: bool) -> Effect {
    Effect::Migrate { generation: 2, embedding: MODEL.into(), region: Some(EU.into()), last }
}

fn said(status: &TenantStatus, type_: &str) -> String {
    get(&status.conditions, type_).expect("said").message.to_string()
}

#[test]
fn a_plan_of_a_region_without_an_index_sells_nothing() {
    for phase in [None, Some(Phase::PendingPayment)] {
        let mut case = Case::new(phase);
        case.plan = Some(plan());
        case.plan.as_mut().expect("a plan").region = "mars-1".into();
        assert_eq!(case.effects(), [Effect::ReadBilling], "one index holds everything");
        case.policy.regions = regions();
        let status = case.recorded();
        assert!(holds(&status, "Stalled", "RegionUnsupported"), "{status:#?}");
        let message = said(&status, "Stalled");
        assert!(message.contains("mars-1") && message.contains("eu-central-1, us-east-1"), "{message}");
        case.plan.as_mut().expect("a plan").region = EU.into();
        assert_eq!(case.effects(), [Effect::ReadBilling]);
    }
}

#[test]
fn a_move_to_a_plan_of_no_known_region_is_blocked() {
    for (known, reason) in [(Regions::default(), "RegionDiffers"), (regions(), "RegionUnsupported")] {
        let mut case = wishing(Phase::Active, 19_900);
        case.wanted.as_mut().expect("a plan").region = "mars-1".into();
        case.policy.regions = known;
        assert!(fails(&case.recorded(), "PlanInForce", reason));
    }
}

#[test]
fn the_data_goes_along_and_is_charged_for_once_it_is_there() {
    let case = moving_abroad();
    assert_eq!(case.effects(), [record(1, US)], "a lost status must not forget where it is");
    // An earlier move to another model noted no region.
    assert_eq!(data(moving_abroad(), 3, None).effects(), [record(3, US)]);
    let status = data(moving_abroad(), 1, Some(US)).recorded();
    let begun = status.migration.as_ref().expect("begun");
    assert_eq!((begun.region.as_deref(), &*begun.embedding, begun.generation), (Some(EU), MODEL, 2));
    assert!(said(&status, "DataMigrated").contains("Copying the tenant's documents to"));
    assert_eq!(status.region.as_deref(), Some(US), "where it is now");
    let at = |state| migration(data(moving_abroad(), 1, Some(US)), Some(EU), state);
    assert_eq!(at(State::Copying).effects(), [copy(false)]);
    assert!(matches!(&*paid(at(State::Copied), "price_4900").effects(), [Effect::SwitchPrice { .. }]));
    let mut last = at(State::Switching);
    assert_eq!(paid(last.clone(), "price_19900").effects(), [copy(true)]);
    last.view.status.migration.as_mut().expect("a move").vectors = 7;
    last.observed.migration = Some(ObservedMigration { vectors: 7, problem: None, done: true, last: true });
    assert_eq!(paid(last.clone(), "price_19900").effects(), [record(2, EU)]);
    let status = paid(data(last, 2, Some(EU)), "price_19900").recorded();
    assert_eq!((status.phase, status.region.as_deref()), (Some(Phase::Active), Some(EU)));
}

#[test]
fn a_move_that_leads_to_another_region_is_begun_anew() {
    let elsewhere = migration(data(moving_abroad(), 1, Some(US)), None, State::Copying);
    assert_eq!(elsewhere.effects(), [Effect::DropNamespace { generation: 2 }]);
    // A lost status may leave a tenant on a plan whose region its data is not in.
    let mut content = Case::new(Some(Phase::Active)).manual(true).sent(&Notice::Welcome);
    content.view.status.config = Some(tenant_operator::api::status::PlanConfig::of("starter", &plan()));
    content.observed.api_key = Some(true);
    let mut content = data(content, 2, Some(EU));
    assert!(content.recorded().migration.is_none(), "one index: a region is but a name");
    content.policy.regions = regions();
    let status = content.recorded();
    let migration = status.migration.expect("begun");
    assert_eq!((migration.generation, migration.region.as_deref()), (3, Some(US)));
    assert_eq!(status.region.as_deref(), Some(EU), "where it is now");
    content.plan.as_mut().expect("a plan").region = EU.into();
    assert!(content.recorded().migration.is_none());
}
