//! `lifecycle::decide`, the very function that production runs, explored in a small world: one tenant, Kubernetes,
//! Pinecone, Stripe and mail; crashes between any two effects, lost answers, refusals, stale reads, lost status.

mod converged;
mod mistakes;
mod moves;
mod world;

use stateright::{Checker, Model};
use tenant_operator::api::plan::PriceChanges;
use tenant_operator::api::tenant::BillingMode;

use tenant_operator::lifecycle::EmailVerification;

use mistakes::Mistake;
use world::{Budget, Small};

fn explore(name: &str, model: Small) {
    let checker = model.checker().spawn_bfs().join();
    println!("{name}: {} states explored, {} distinct", checker.state_count(), checker.unique_state_count());
    for (property, path) in checker.discoveries() {
        if property != "Active is reached" {
            let last = path.last_state().clone();
            panic!("{property} does not hold after {:?}\n{last:#?}", path.into_actions());
        }
    }
    assert!(checker.unique_state_count() > 50, "a world this small proves nothing");
}

#[test]
fn a_tenant_that_pays_by_stripe() {
    let budget = Budget { crashes: 2, faults: 2, stale: 1, slow: 1, ..Budget::default() };
    explore("Stripe, crashes, faults and stale reads", Small::new(BillingMode::Stripe, budget));
}

#[test]
fn a_tenant_billed_by_hand() {
    let budget =
        Budget { crashes: 2, faults: 1, stale: 1, wipes: 1, secrets: 1, overloads: 1, slow: 1, ..Budget::default() };
    explore("Manual, lost status and Secrets, overload", Small::new(BillingMode::Manual, budget));
}

#[test]
fn a_lost_status_and_an_expired_session() {
    let budget = Budget { crashes: 1, wipes: 1, expiries: 1, ..Budget::default() };
    explore("Stripe, lost status, expired session", Small::new(BillingMode::Stripe, budget));
}

#[test]
fn a_provider_that_stays_broken_and_a_retry_after_it() {
    let budget = Budget { crashes: 1, faults: 1, repairs: 1, slow: 1, ..Budget::default() };
    explore(
        "Stripe, a broken provider, refund, retry",
        Small { broken: true, ..Small::new(BillingMode::Stripe, budget) },
    );
}

#[test]
fn a_provider_that_is_away_while_the_status_of_a_customer_is_lost() {
    let budget = Budget { wipes: 1, breaks: 1, ..Budget::default() };
    explore("Stripe, Pinecone away, lost status", Small::new(BillingMode::Stripe, budget));
}

#[test]
fn a_subscription_that_is_cancelled_at_stripe_while_provisioning_fails() {
    let budget = Budget { crashes: 1, repairs: 1, lapses: 1, ..Budget::default() };
    explore(
        "Stripe, a broken provider, cancelled at Stripe",
        Small { broken: true, ..Small::new(BillingMode::Stripe, budget) },
    );
}

#[test]
fn a_signup_that_confirms_its_address_before_or_after_the_payment() {
    let budget = Budget { crashes: 1, faults: 1, stale: 1, webhooks: 1, ..Budget::default() };
    for email_verification in [EmailVerification::BeforeProvisioning, EmailVerification::BeforePayment] {
        let mut model = Small { login: true, ..Small::new(BillingMode::Stripe, budget) };
        model.policy.email_verification = email_verification;
        explore(&format!("Stripe, {email_verification:?}"), model);
    }
}

#[test]
fn a_deletion_by_accident_at_any_moment() {
    let budget = Budget { crashes: 1, faults: 1, accidents: 1, ..Budget::default() };
    explore("Stripe, deleted by accident", Small::new(BillingMode::Stripe, budget));
}

#[test]
fn a_subscription_that_ends_and_another_after_it() {
    let budget = Budget { crashes: 1, faults: 1, lapses: 1, ..Budget::default() };
    explore("Stripe, a subscription that ends", Small::new(BillingMode::Stripe, budget));
}

#[test]
fn an_admin_who_suspends_at_any_moment() {
    let budget = Budget { crashes: 1, faults: 1, suspensions: 1, ..Budget::default() };
    explore("Stripe, suspended at any moment", Small::new(BillingMode::Stripe, budget));
    let budget = Budget { stale: 1, suspensions: 2, ..budget };
    explore("Manual, suspended at any moment", Small::new(BillingMode::Manual, budget));
}

#[test]
fn a_larger_plan_and_back_and_a_card_that_is_declined() {
    let budget = Budget { crashes: 1, faults: 1, wishes: 2, declines: 1, ..Budget::default() };
    explore("Stripe, another plan and back", Small::new(BillingMode::Stripe, budget));
    // No card is involved.
    let budget = Budget { stale: 1, wipes: 1, declines: 0, ..budget };
    explore("Manual, another plan and back", Small::new(BillingMode::Manual, budget));
    let up_down_and_up = Budget { crashes: 1, wishes: 3, ..Budget::default() };
    explore("Stripe, a change that is undone", Small::new(BillingMode::Stripe, up_down_and_up));
    let budget = Budget { wishes: 1, suspensions: 1, ..Budget::default() };
    explore("Stripe, another plan, suspended at any moment", Small::new(BillingMode::Stripe, budget));
    let budget = Budget { wishes: 1, wipes: 1, deletions: 1, ..Budget::default() };
    explore("Stripe, another plan, lost status, deletion", Small::new(BillingMode::Stripe, budget));
    let budget = Budget { wishes: 2, wipes: 1, ..Budget::default() };
    explore("Stripe, a smaller plan, lost status", Small::new(BillingMode::Stripe, budget));
}

#[test]
fn a_customer_who_switches_the_plan_at_stripe() {
    let budget = Budget { crashes: 1, faults: 1, switches: 1, ..Budget::default() };
    explore("Stripe, another price is billed", Small::new(BillingMode::Stripe, budget));
    let mut follows = Small::new(BillingMode::Stripe, Budget { wishes: 1, ..budget });
    follows.plan.price_changes = PriceChanges::Follow;
    follows.larger.price_changes = PriceChanges::Follow;
    explore("Stripe, the plan follows the price that is billed", follows);
}

#[test]
fn a_customer_who_leaves_and_may_come_back() {
    let budget = Budget { crashes: 1, faults: 1, leavings: 1, accidents: 0, ..Budget::default() };
    explore("Stripe, a customer who leaves", Small { erase: false, ..Small::new(BillingMode::Stripe, budget) });
    let budget = Budget { leavings: 2, stale: 1, ..budget };
    explore("Manual, leaves and comes back", Small { erase: false, ..Small::new(BillingMode::Manual, budget) });
    let budget = Budget { leavings: 1, wipes: 1, wishes: 1, ..Budget::default() };
    explore(
        "Stripe, leaves with a lost status or another plan",
        Small { erase: false, ..Small::new(BillingMode::Stripe, budget) },
    );
}

#[test]
fn webhooks_twice_late_and_in_the_middle_of_a_reconcile() {
    let budget = Budget { crashes: 1, faults: 1, webhooks: 2, wipes: 1, ..Budget::default() };
    explore("Stripe, webhooks at any moment", Small::new(BillingMode::Stripe, budget));
}

#[test]
fn an_event_store_that_is_away_and_the_end_of_the_object() {
    let budget = Budget { crashes: 1, faults: 1, deletions: 1, overloads: 1, ..Budget::default() };
    explore("Stripe, an event store, deletion", Small::shipping(BillingMode::Stripe, budget));
    let budget = Budget { faults: 1, deletions: 1, leavings: 1, ..Budget::default() };
    explore("Manual, an event store, leaves", Small { erase: false, ..Small::shipping(BillingMode::Manual, budget) });
}

#[test]
fn an_export_at_any_moment() {
    let budget = Budget { crashes: 1, faults: 1, stale: 1, exports: 1, ..Budget::default() };
    explore("Stripe, an export", Small::new(BillingMode::Stripe, budget));
    let budget = Budget { crashes: 1, exports: 1, leavings: 1, deletions: 1, ..Budget::default() };
    explore("Manual, an export of who leaves", Small { erase: false, ..Small::new(BillingMode::Manual, budget) });
}

#[test]
fn a_deletion_at_any_moment() {
    let budget = Budget { crashes: 1, faults: 1, deletions: 1, slow: 1, ..Budget::default() };
    explore("Stripe, deletion at any moment", Small::new(BillingMode::Stripe, budget));
}

#[test]
fn a_clock_that_jumps_at_any_moment() {
    let budget = Budget { crashes: 1, faults: 1, jumps: 1, leavings: 1, ..Budget::default() };
    explore("Stripe, a clock that jumps, leaves", Small { erase: false, ..Small::new(BillingMode::Stripe, budget) });
    let budget = Budget { jumps: 2, wishes: 2, exports: 1, ..Budget::default() };
    explore("Manual, a clock that jumps, another plan", Small::new(BillingMode::Manual, budget));
}

#[test]
fn a_key_that_is_replaced_while_no_welcome_can_be_sent() {
    let budget = Budget { crashes: 1, faults: 1, stale: 1, keys: 2, ..Budget::default() };
    explore("Stripe, a replaced key, no mail", Small { mute: true, ..Small::new(BillingMode::Stripe, budget) });
    let budget = Budget { secrets: 1, wishes: 1, ..budget };
    explore("Manual, a replaced key, another plan", Small::new(BillingMode::Manual, budget));
}

#[test]
fn a_key_of_another_account_at_any_moment() {
    let budget = Budget { crashes: 1, strangers: 1, lapses: 1, ..Budget::default() };
    explore("Stripe, a key of another account", Small::new(BillingMode::Stripe, budget));
    let budget = Budget { strangers: 1, leavings: 1, ..Budget::default() };
    explore("Stripe, another account, leaves", Small { erase: false, ..Small::new(BillingMode::Stripe, budget) });
}

#[test]
fn one_wish_on_top_of_another() {
    let budget = Budget { wishes: 1, suspensions: 1, leavings: 1, ..Budget::default() };
    explore("Stripe, wishes on top of each other", Small { erase: false, ..Small::new(BillingMode::Stripe, budget) });
    let budget = Budget { crashes: 1, ..budget };
    explore("Manual, wishes on top of each other", Small { erase: false, ..Small::new(BillingMode::Manual, budget) });
}

/// Each seeded mistake, what it takes to meet it, and the property that it violates.
fn seeded_mistakes() -> Vec<(Mistake, Budget, &'static str)> {
    const STABLE: &str = "eventually stable reconciliation";
    const ONCE: &str = "one customer, one charge, one refund, one namespace";
    const ORDER: &str = "each phase change once, in order";
    let plain = Budget { crashes: 1, faults: 1, stale: 1, ..Budget::default() };
    let broken = Budget { crashes: 1, faults: 1, repairs: 1, ..Budget::default() };
    let expiring = Budget { expiries: 1, ..Budget::default() };
    let deleting = Budget { deletions: 1, ..Budget::default() };
    let careless = Budget { accidents: 1, ..Budget::default() };
    let lapsing = Budget { lapses: 1, ..Budget::default() };
    let suspending = Budget { suspensions: 1, ..Budget::default() };
    let leaving = Budget { faults: 1, leavings: 1, ..Budget::default() };
    let wishing = Budget { faults: 1, wishes: 2, declines: 1, ..Budget::default() };
    let switching = Budget { switches: 1, ..Budget::default() };
    let forgetting = Budget { wishes: 2, wipes: 1, ..Budget::default() };
    let overloaded = Budget { crashes: 1, overloads: 1, ..Budget::default() };
    let exporting = Budget { exports: 1, ..Budget::default() };
    vec![
        (Mistake::SamplesAssumedSeen, plain, "Active only after the samples were seen"),
        (Mistake::StaleWritesAccepted, plain, ORDER),
        (Mistake::SentForgotten, plain, STABLE),
        // Sends are counted, not collected: with no crash and no lost answer, a second one is one too many.
        (Mistake::NoteForgotten, Budget::default(), "no notice is sent again without a reason"),
        (Mistake::NewKeyEachTime, plain, ONCE),
        (Mistake::WelcomeForgotten, plain, STABLE),
        (Mistake::WelcomeHidesRest, Budget { keys: 1, ..plain }, STABLE),
        (Mistake::KeyAssumedPresent, plain, STABLE),
        (Mistake::IncompleteCountsAsPaid, plain, "Active only after the payment"),
        (Mistake::IdsNotStored, plain, "what must outlive the status is in the spec"),
        (Mistake::TransitionForgotten, plain, ORDER),
        (Mistake::IdentityNeverSettled, plain, STABLE),
        (Mistake::StatusNeverSettled, plain, STABLE),
        (Mistake::NamespaceNeverSettled, plain, STABLE),
        (Mistake::ExpiredLinkShown, expiring, STABLE),
        (Mistake::AttemptNotNumbered, expiring, STABLE),
        (Mistake::FinalizerRemovedFirst, deleting, STABLE),
        (Mistake::CancelForgotten, deleting, STABLE),
        (Mistake::RefundedBlindly, broken, ONCE),
        (Mistake::AttemptsForgotten, broken, STABLE),
        (Mistake::PauseUnseen, broken, STABLE),
        (Mistake::PauseForgotten, broken, STABLE),
        (Mistake::ResumeForgotten, broken, STABLE),
        (
            Mistake::ServiceForgotten,
            Budget { wipes: 1, breaks: 1, ..Budget::default() },
            "a tenant that was served does not fail for an outage",
        ),
        (Mistake::EndedPaused, Budget { lapses: 1, repairs: 1, ..Budget::default() }, STABLE),
        (Mistake::ServedUnpaid, broken, "a served customer has paid and was not refunded"),
        (Mistake::RefundForgotten, broken, STABLE),
        (Mistake::AlertForgotten, broken, STABLE),
        (Mistake::FailedMailForgotten, broken, STABLE),
        (Mistake::RetryIgnored, broken, STABLE),
        (Mistake::ChargedBlindly, wishing, "a larger plan is charged once"),
        (Mistake::ChangedUnpaid, wishing, "a larger plan is in force only after its payment"),
        (Mistake::ChangedTooSoon, wishing, "who has the larger plan is served by it to the end of the period"),
        (Mistake::WishInForce, forgetting, "a lost status puts no other plan in force"),
        (Mistake::ScheduleForgotten, forgetting, "who has the larger plan is served by it to the end of the period"),
        (Mistake::WishIgnored, wishing, STABLE),
        (Mistake::UndoForgotten, Budget { wishes: 3, ..Budget::default() }, STABLE),
        (Mistake::DeclineUnheard, wishing, STABLE),
        (Mistake::PriceUnseen, switching, STABLE),
        (Mistake::ErasedTooSoon, leaving, "nothing is erased without the wish to"),
        (Mistake::RenewalGoesOn, leaving, "the subscription of a customer who has left does not renew"),
        (Mistake::TakeBackIgnored, leaving, "nothing is erased without the wish to"),
        (Mistake::EndForgotten, leaving, STABLE),
        (Mistake::NamespaceKept, leaving, STABLE),
        (Mistake::CertificateUnsent, leaving, STABLE),
        (Mistake::IntentAssumed, careless, "nothing is erased without the wish to"),
        (Mistake::EndUnseen, lapsing, STABLE),
        (Mistake::SuspendedAndCharged, suspending, STABLE),
        (Mistake::ResumeIgnored, suspending, STABLE),
        (Mistake::SuspensionLifted, Budget { suspensions: 1, leavings: 1, ..Budget::default() }, STABLE),
        (Mistake::OutboxForgotten, deleting, "no transition goes before it is shipped"),
        (Mistake::ShippedAssumed, Budget { faults: 1, ..deleting }, "no transition goes before it is shipped"),
        (Mistake::HeldOvertaken, overloaded, "what is shipped has happened"),
        (Mistake::ExportForgotten, exporting, STABLE),
        (Mistake::ExportKept, exporting, STABLE),
        (Mistake::ExportGoesOn, Budget { leavings: 1, ..exporting }, "nothing of an export outlives the erasure"),
        (Mistake::OwnClockBelieved, Budget { jumps: 1, ..leaving }, "nothing is erased without the wish to"),
        (
            Mistake::UnknownCountsAsDeleted,
            Budget { strangers: 1, ..Budget::default() },
            "an account that does not know the tenant suspends nothing",
        ),
        (Mistake::ConfirmationAssumed, plain, "no tenant is set up for an unconfirmed address"),
        (Mistake::ConfirmationForgotten, plain, STABLE),
    ]
}

/// The checker is known to bite: each seeded mistake violates the property that it should.
#[test]
fn seeded_mistakes_are_caught() {
    let outbox = [Mistake::OutboxForgotten, Mistake::ShippedAssumed, Mistake::HeldOvertaken];
    for (mistake, budget, property) in seeded_mistakes() {
        let model = Small {
            mistake: Some(mistake),
            broken: budget.repairs > 0,
            mute: mistake == Mistake::WelcomeHidesRest,
            erase: budget.accidents + budget.leavings == 0,
            login: matches!(mistake, Mistake::ConfirmationAssumed | Mistake::ConfirmationForgotten),
            ..if outbox.contains(&mistake) {
                Small::shipping(BillingMode::Stripe, budget)
            } else {
                Small::new(BillingMode::Stripe, budget)
            }
        };
        let checker =
            model.checker().finish_when(stateright::HasDiscoveries::AnyOf([property].into())).spawn_bfs().join();
        assert!(checker.discovery(property).is_some(), "{mistake:?} was not caught by {property:?}");
        println!("{mistake:?}: caught by {property:?} after {} states", checker.unique_state_count());
    }
}
