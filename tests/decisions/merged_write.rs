use tenant_operator::api::{Phase, TenantStatus};
use tenant_operator::lifecycle::{Effect, Notice, may_merge, may_precede};

fn at(phase: Option<Phase>) -> TenantStatus {
    TenantStatus { phase, ..TenantStatus::default() }
}

#[test]
fn only_the_beginning_of_the_first_run_may_wait_to_be_written() {
    let provisioning = at(Some(Phase::Provisioning));
    for before in [None, Some(Phase::PendingPayment)] {
        assert!(may_merge(&at(before), &provisioning));
        assert!(
            !may_merge(&at(before), &at(Some(Phase::PendingPayment))),
            "the customer waits for the payment link in it"
        );
    }
    // A retry or a return: the failure and the refund before it must not be forgotten by a crash.
    for before in [Phase::Failed, Phase::Suspended, Phase::Active, Phase::Provisioning, Phase::Deleting] {
        assert!(!may_merge(&at(Some(before)), &provisioning), "{before}");
    }
}

#[test]
fn nothing_that_others_notice_is_done_before_it_is_written() {
    let harmless = [Effect::EnsureApiKey, Effect::EnsureNamespace, Effect::StoreSamples, Effect::VerifySamples];
    assert!(may_precede(&harmless));
    let others = [
        Effect::Notify(Notice::SlowAlert(String::new())),
        Effect::MarkSent(Vec::new()),
        Effect::AssignIdentity { plan: None },
        Effect::CollectAnew,
        Effect::RenewAgain,
        Effect::ForgetClosing,
        Effect::ReadBilling,
        Effect::ShipTransitions,
    ];
    for other in others {
        assert!(!may_precede(&[Effect::EnsureApiKey, other.clone()]), "{other:?}");
    }
}
