//! Exports: each begins once, shows its progress, is announced by e-mail, is deleted after a while, and delays nothing
//! else.

use tenant_operator::api::status::{Erasure, Export, ExportState as State};
use tenant_operator::api::{ConditionStatus, Phase, TenantStatus, Timestamp, conditions};
use tenant_operator::lifecycle::{Decision, Effect, Notice, ObservedExport};

use crate::case::{Case, NOW};

const KEPT: i64 = 600;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second)
}

/// An Active tenant whose customer asked for an export.
fn asked() -> Case {
    let mut case = Case::new(Some(Phase::Active)).sent(&Notice::Welcome);
    case.observed.api_key = Some(true);
    case = case.at_rest();
    case.view.spec.export_request = Some("customer-1".into());
    case.policy.exports_kept = Some(KEPT);
    case
}

fn with(state: State, change: impl FnOnce(&mut Export)) -> Case {
    let mut case = asked();
    let mut export = Export {
        request: "customer-1".into(),
        state,
        started_at: at(NOW - 30),
        finished_at: None,
        expires_at: None,
        path: None,
        files: 0,
        bytes: 0,
    };
    change(&mut export);
    case.view.status.export = Some(Box::new(export));
    case
}

pub fn ready(finished: i64) -> Case {
    with(State::Ready, |export| {
        (export.finished_at, export.expires_at) = (Some(at(finished)), Some(at(finished + KEPT)));
    })
}

fn export(status: &TenantStatus) -> &Export {
    status.export.as_deref().expect("an export")
}

fn shown(status: &TenantStatus) -> (ConditionStatus, String) {
    let condition = conditions::get(&status.conditions, "ExportReady").expect("a condition");
    (condition.status, condition.reason.to_string())
}

#[test]
fn it_begins_once_for_each_request() {
    let case = asked();
    let status = case.recorded();
    assert_eq!((export(&status).state, export(&status).started_at), (State::Running, at(NOW)));
    assert_eq!(shown(&status), (ConditionStatus::False, "Running".into()));
    let mut running = case.clone();
    running.view.status = status;
    assert_eq!(running.effects(), [Effect::Export]);
    let mut again = ready(NOW - 10).sent(&Notice::ExportReady("customer-1".into()));
    assert_ne!(again.decide(), Decision::Act(vec![Effect::Export]), "the same name asks for nothing new");
    again.view.spec.export_request = Some("customer-2".into());
    assert_eq!(&*export(&again.recorded()).request, "customer-2");
}

#[test]
fn without_storage_it_fails_at_once_and_says_what_to_do() {
    let mut case = asked();
    case.policy.exports_kept = None;
    let status = case.recorded();
    assert_eq!(export(&status).state, State::Failed);
    assert_eq!(shown(&status), (ConditionStatus::False, "NoStorage".into()));
    case.view.status = status;
    assert!(!matches!(case.decide(), Decision::Act(effects) if effects.contains(&Effect::Export)));
}

#[test]
fn nothing_is_exported_before_there_is_anything_or_once_it_is_being_erased() {
    for phase in [None, Some(Phase::PendingPayment), Some(Phase::Deleted)] {
        let mut case = asked();
        case.view.status.phase = phase;
        case.view.status.provisioned_at = (phase == Some(Phase::Deleted)).then_some(at(NOW - 10));
        assert!(!matches!(case.decide(), Decision::Record(status) if status.export.is_some()), "{phase:?}");
    }
    let mut erasing = asked();
    erasing.view.status.phase = Some(Phase::Deleting);
    erasing.view.status.erasure = Some(Erasure { started_at: at(NOW), erased_at: None, lines: Vec::new() });
    assert!(!matches!(erasing.decide(), Decision::Record(status) if status.export.is_some()));
    // A customer who leaves can export the data until the erasure, and so can one whose payment is late.
    for phase in [Phase::Deleting, Phase::Suspended, Phase::Failed, Phase::Upgrading] {
        let mut case = asked();
        case.view.status.phase = Some(phase);
        case.view.status.provisioned_at = Some(at(NOW - 10));
        if phase == Phase::Deleting {
            case.view.spec.desired = tenant_operator::api::tenant::Desired::Deleted;
            case.view.status.erases_at = Some(at(NOW + 1000));
        }
        let begins = |d: &Decision| matches!(d, Decision::Record(status) if status.export.is_some());
        let begun = case.on_the_way(begins);
        assert!(matches!(begun, Some(Decision::Record(s)) if export(&s).state == State::Running), "{phase}");
    }
}

#[test]
fn how_far_it_is_and_what_it_waits_for_is_shown() {
    let mut case = with(State::Running, |_| {});
    case.observed.export = Some(ObservedExport::Running { files: 3, bytes: 70, problem: None });
    let status = case.recorded();
    assert_eq!((export(&status).files, export(&status).bytes), (3, 70));
    // Without new progress, the tenant's other work goes on.
    let mut same = case.clone();
    same.view.status = status;
    assert!(!matches!(same.decide(), Decision::Act(effects) if effects.contains(&Effect::Export)));
    case.observed.export =
        Some(ObservedExport::Running { files: 3, bytes: 70, problem: Some("Pinecone: away".into()) });
    let status = case.recorded();
    assert_eq!(shown(&status), (ConditionStatus::False, "Retrying".into()));
    assert_eq!(export(&status).state, State::Running);
    case.view.status.export.as_mut().expect("there").started_at = at(NOW - case.policy.export_limit);
    let status = case.recorded();
    assert_eq!((export(&status).state, shown(&status).1.as_str()), (State::Failed, "NotComplete"));
    // Late, and nothing is wrong: it is only large.
    case.observed.export = Some(ObservedExport::Running { files: 4, bytes: 80, problem: None });
    assert_eq!(export(&case.recorded()).state, State::Running);
}

#[test]
fn its_customer_is_told_once_it_is_complete_and_it_is_deleted_after_its_time() {
    let mut case = with(State::Running, |_| {});
    case.observed.export = Some(ObservedExport::Done { path: "s3://b/t1/customer-1".into(), files: 9, bytes: 800 });
    let status = case.recorded();
    let done = export(&status);
    assert_eq!((done.state, done.finished_at, done.expires_at), (State::Ready, Some(at(NOW)), Some(at(NOW + KEPT))));
    assert_eq!((done.files, done.bytes, done.path.as_deref()), (9, 800, Some("s3://b/t1/customer-1")));
    assert_eq!(shown(&status), (ConditionStatus::True, "Ready".into()));
    let mut told = case.clone();
    (told.view.status, told.observed.export) = (status, None);
    let notice = Notice::ExportReady("customer-1".into());
    assert_eq!(told.effects(), [Effect::Notify(notice.clone())]);
    // Who writes manifests sees the status.
    let mut by_admin = told.clone();
    by_admin.view.spec.export_request = Some("at-1".into());
    by_admin.view.status.export.as_mut().expect("there").request = "at-1".into();
    assert!(
        !matches!(by_admin.decide(), Decision::Act(effects) if effects.iter().any(|e| matches!(e, Effect::Notify(Notice::ExportReady(_)))))
    );

    let over = ready(NOW - KEPT).sent(&notice);
    assert_eq!(over.effects(), [Effect::DeleteExports]);
    let mut deleted = over.clone();
    deleted.observed.done.insert(Effect::DeleteExports);
    let status = deleted.recorded();
    assert_eq!((export(&status).state, export(&status).path.as_ref()), (State::Expired, None));
    assert_eq!(shown(&status), (ConditionStatus::False, "Expired".into()));
    let not_yet = ready(NOW - KEPT + 7).sent(&notice);
    assert!(!matches!(not_yet.decide(), Decision::Act(effects) if effects.contains(&Effect::DeleteExports)));
}

#[test]
fn an_erasure_and_a_deletion_take_the_files_along() {
    let mut case = Case::new(Some(Phase::Deleting)).sent(&Notice::Welcome);
    case.view.deleting = true;
    assert!(!case.effects().contains(&Effect::DeleteExports), "there is no storage");
    case.policy.exports_kept = Some(KEPT);
    assert!(case.effects().contains(&Effect::DeleteExports));
}

/// In any phase, with any state and progress of an export, the controller stops writing the status.
#[test]
fn an_export_never_writes_for_ever() {
    let seen = [
        None,
        Some(ObservedExport::Running { files: 1, bytes: 2, problem: None }),
        Some(ObservedExport::Running { files: 1, bytes: 2, problem: Some("away".into()) }),
        Some(ObservedExport::Done { path: "p".into(), files: 3, bytes: 4 }),
    ];
    let phases = [
        Phase::PendingPayment,
        Phase::Provisioning,
        Phase::Active,
        Phase::Failed,
        Phase::Upgrading,
        Phase::Downgrading,
        Phase::Suspended,
        Phase::Deleting,
        Phase::Deleted,
    ];
    let states = [State::Running, State::Ready, State::Failed, State::Expired];
    for phase in phases {
        for seen in &seen {
            for state in states {
                for kept in [None, Some(KEPT)] {
                    for (age, name) in [(1, "customer-1"), (KEPT, "customer-1"), (1, "customer-2")] {
                        let mut case = with(state, |export| {
                            export.request = name.into();
                            (export.finished_at, export.expires_at) = (Some(at(NOW - age)), Some(at(NOW - age + KEPT)));
                        });
                        case.view.status.phase = Some(phase);
                        case.view.status.provisioned_at = Some(at(NOW - 1000));
                        (case.observed.export, case.policy.exports_kept) = (seen.clone(), kept);
                        let mut count = 0;
                        while let Decision::Record(written) = case.decide()
                            && count < 20
                        {
                            (case.view.status, count) = (*written, count + 1);
                        }
                        assert!(count < 20, "{phase} {state:?} {seen:?} {kept:?} {age} {name}");
                    }
                }
            }
        }
    }
}
