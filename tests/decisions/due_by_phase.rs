//! What is due in the phases in which a tenant is not served, beside what may hold it up there. `due.rs` is about
//! tenants that are served.

use tenant_operator::api::status::Refund;
use tenant_operator::api::tenant::Desired;
use tenant_operator::api::{LinkKind, MailRequest, Phase, TenantStatus, Timestamp};
use tenant_operator::lifecycle::{Decision, Effect, ObservedRefund, Outcome, SessionState};

use crate::case::{Case, NOW, session, subscription};
use crate::due::{Due, Obstacle, never, nothing, pinecone, run, stripe};
use crate::leaving::{closed, leaving};

fn mail(effect: &Effect) -> bool {
    matches!(effect, Effect::Notify(_))
}

fn obstacles() -> Vec<Obstacle> {
    let obstacle = |name, arrange, fails| Obstacle { name, arrange, fails };
    vec![
        obstacle("nothing", nothing, never),
        obstacle("a mail server and an alert webhook that refuse everything", nothing, mail),
        obstacle("a note of an e-mail that is refused", nothing, |e| matches!(e, Effect::MarkSent(_))),
        obstacle(
            "Stripe is away",
            |c| c.observed.resync = true,
            |e| stripe(e) || matches!(e, Effect::Refund | Effect::StopRenewal),
        ),
        obstacle("Pinecone is away", |c| c.observed.resync = true, pinecone),
        obstacle(
            "the customer at Stripe is refused",
            |c| c.view.status.admin_email = Some("before@example.com".into()),
            |e| *e == Effect::UpdateCustomer,
        ),
    ]
}

/// A tenant that an admin suspended, after some days of service.
fn suspended() -> Case {
    let mut case = leaving(Phase::Active).billing(Some(subscription("active")), None);
    case.view.spec.desired = Desired::Suspended;
    case.view.status.admin_email = Some("ada@example.com".into());
    let mut case = case.at_rest();
    case.observed.billing = None;
    assert_eq!(case.view.status.phase, Some(Phase::Suspended));
    case
}

fn failed() -> Case {
    let mut case = Case::new(Some(Phase::Failed));
    case.view.status.admin_email = Some("ada@example.com".into());
    case
}

fn unpaid() -> Case {
    let mut case = Case::new(Some(Phase::PendingPayment)).billing(None, Some(session(SessionState::Open, 1)));
    case.view.status.admin_email = Some("ada@example.com".into());
    case
}

fn closing() -> Case {
    let mut case = closed(20 * 24 * 3600);
    case.view.status.admin_email = Some("ada@example.com".into());
    case
}

fn login(case: &mut Case) {
    *case = case.clone().signed_up();
    case.view.mail_requests = vec![MailRequest { kind: LinkKind::LoginLink, at: Timestamp::from_second(NOW) }];
}

fn address(case: &mut Case) {
    case.view.status.admin_email = Some("before@example.com".into());
}

fn in_phase(phase: Phase) -> impl Fn(&TenantStatus) -> bool {
    move |status| status.phase == Some(phase)
}

/// What is due in every phase.
fn always() -> Due {
    Due { name: "a link to log in", arrange: login, done: |s| s.told("login-link") }
}

/// A phase, a tenant in it, and what is due there alone.
type InPhase = (&'static str, fn() -> Case, Vec<Due>);

fn phases() -> Vec<InPhase> {
    vec![
        (
            "Suspended",
            suspended,
            vec![
                Due {
                    name: "the end of a suspension",
                    arrange: |c| {
                        c.view.spec.desired = Desired::Active;
                        *c = c.clone().billing(Some(subscription("active")), None);
                    },
                    done: |s| s.wrote(in_phase(Phase::Active)),
                },
                Due {
                    name: "the notice to an address that was replaced",
                    arrange: address,
                    done: |s| s.told("address-changed"),
                },
                Due {
                    name: "a customer who leaves",
                    arrange: |c| c.view.spec.desired = Desired::Deleted,
                    done: |s| s.wrote(in_phase(Phase::Deleting)),
                },
            ],
        ),
        (
            "Failed",
            failed,
            vec![
                Due {
                    name: "a refund",
                    arrange: |c| {
                        *c = c.clone().billing(Some(subscription("active")), None);
                        c.observed.learn(&Effect::PauseCollection, Outcome::Done);
                        c.observed.refund = Some(ObservedRefund {
                            amount: 4900,
                            currency: Some("usd".into()),
                            ..ObservedRefund::default()
                        });
                    },
                    done: |s| s.wrote(|status| status.refund.is_some()),
                },
                Due {
                    name: "a retry",
                    arrange: |c| {
                        c.view.retry_token = Some("2".into());
                        c.view.status.refund =
                            Some(Refund { amount: 0, currency: None, at: Timestamp::from_second(NOW), waived: false });
                        *c = c.clone().billing(Some(subscription("active")), None);
                    },
                    done: |s| s.wrote(in_phase(Phase::Provisioning)),
                },
                Due { name: "what the platform team is told", arrange: nothing, done: |s| s.told("failed-alert") },
            ],
        ),
        (
            "PendingPayment",
            unpaid,
            vec![Due {
                name: "a payment that came",
                arrange: |c| {
                    *c = c.clone().billing(Some(subscription("active")), Some(session(SessionState::Complete, 1)));
                },
                done: |s| s.wrote(in_phase(Phase::Provisioning)),
            }],
        ),
        (
            "Deleting",
            closing,
            vec![
                Due { name: "the end of the renewal", arrange: nothing, done: |s| s.did(&Effect::StopRenewal) },
                Due {
                    name: "a customer who comes back",
                    arrange: |c| {
                        c.view.spec.desired = Desired::Active;
                        *c = c.clone().billing(Some(subscription("active")), None);
                    },
                    done: |s| s.wrote(in_phase(Phase::Active)),
                },
            ],
        ),
    ]
}

fn hidden(next: fn(&Case) -> Decision) -> Vec<String> {
    let mut hidden = Vec::new();
    for (phase, start, own) in phases() {
        for obstacle in obstacles() {
            for due in own.iter().chain([&always()]) {
                let mut case = start();
                (obstacle.arrange)(&mut case);
                (due.arrange)(&mut case);
                if !(due.done)(&run(case, &obstacle, next, due.done)) {
                    hidden.push(format!("{phase}: {} hides {}", obstacle.name, due.name));
                }
            }
        }
    }
    hidden
}

#[test]
fn what_is_due_to_a_tenant_that_is_not_served_is_done_whatever_else_waits_or_fails() {
    let hidden = hidden(Case::next);
    assert!(hidden.is_empty(), "{hidden:#?}");
}

/// The same search finds a failed e-mail that silences the rest.
#[test]
fn an_email_that_silences_the_rest_is_found() {
    let hidden = hidden(|case| if case.observed.unsent.is_empty() { case.next() } else { Decision::Wait(Some(60)) });
    let wanted = "Failed: a mail server and an alert webhook that refuse everything hides a refund";
    assert!(hidden.iter().any(|found| found == wanted), "{hidden:#?}");
}
