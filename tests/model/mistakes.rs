//! Mistakes that one could make in `decide` and around it: in what it sees, in what it answers, in how that is done.

use tenant_operator::api::status::Refund;
use tenant_operator::api::tenant::{Desired, StripeRefs};
use tenant_operator::api::{Phase, TenantStatus, Timestamp};
use tenant_operator::lifecycle::{
    Decision, Effect, Notice, Observed, ObservedSubscription, Samples, SessionState, View,
};

use crate::world::LARGER;

/// A seeded mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// What was upserted counts as seen.
    SamplesAssumedSeen,
    /// A status is written even if the object has changed meanwhile.
    StaleWritesAccepted,
    /// What was sent is not remembered outside the process.
    SentForgotten,
    /// What was sent is never noted.
    NoteForgotten,
    /// Stripe calls carry no idempotency key, and the controller does not look first.
    NewKeyEachTime,
    /// A refund is made without a look at those that were.
    RefundedBlindly,
    /// Failed attempts are not counted.
    AttemptsForgotten,
    /// The controller does not notice that collection is paused.
    PauseUnseen,
    /// Collection goes on for a tenant that is not served.
    PauseForgotten,
    /// Collection stays paused for a tenant that is.
    ResumeForgotten,
    /// Collection goes on after a refund, and nothing is charged for the period.
    ServedUnpaid,
    /// Nothing is given back.
    RefundForgotten,
    /// The platform team is not told of a failure.
    AlertForgotten,
    /// The customer is not told of a failure.
    FailedMailForgotten,
    /// The welcome e-mail is not sent.
    WelcomeForgotten,
    /// Until the welcome e-mail is sent, nothing else is written down.
    WelcomeHidesRest,
    /// The Secret is taken for granted.
    KeyAssumedPresent,
    /// A subscription counts as paid before its payment arrived.
    IncompleteCountsAsPaid,
    /// The Stripe ids are not kept in the spec.
    IdsNotStored,
    /// A transition is not written down.
    TransitionForgotten,
    /// An expired link is still shown.
    ExpiredLinkShown,
    /// The next Checkout session is made under the key of the last.
    AttemptNotNumbered,
    /// A retry is not heard.
    RetryIgnored,
    /// The e-mail address counts as confirmed.
    ConfirmationAssumed,
    /// The confirmation e-mail is not sent.
    ConfirmationForgotten,
    /// The controller does not notice that the subscription of an Active tenant ended.
    EndUnseen,
    /// Collection goes on for a tenant that an admin suspended.
    SuspendedAndCharged,
    /// The admin's resume is not heard.
    ResumeIgnored,
    /// A customer who reopens a closed account lifts the suspension of an admin.
    SuspensionLifted,
    /// A larger plan is charged without checking which price is billed already.
    ChargedBlindly,
    /// A larger plan is in force before it is paid.
    ChangedUnpaid,
    /// A smaller plan is in force before its day.
    ChangedTooSoon,
    /// After a lost status, the plan that is wished for counts as the one in force.
    WishInForce,
    /// After a lost status, a smaller plan that was scheduled is in force before its day.
    ScheduleForgotten,
    /// The controller ignores a request for another plan.
    WishIgnored,
    /// A scheduled change that was taken back stays at Stripe.
    UndoForgotten,
    /// A card that was declined is tried for ever.
    DeclineUnheard,
    /// The price that is billed is not compared with the plan.
    PriceUnseen,
    /// A tenant that leaves is erased at once.
    ErasedTooSoon,
    /// The subscription of a customer who has left renews.
    RenewalGoesOn,
    /// The controller ignores a customer who comes back.
    TakeBackIgnored,
    /// The subscription of a customer who came back still ends.
    EndForgotten,
    /// The namespace of an erased tenant stays.
    NamespaceKept,
    /// The certificate of the erasure is not sent.
    CertificateUnsent,
    /// Every deletion is taken for the wish to erase.
    IntentAssumed,
    /// The object is let go before the providers.
    FinalizerRemovedFirst,
    /// The subscription of a deleted tenant goes on.
    CancelForgotten,
    /// Transitions are not shipped.
    OutboxForgotten,
    /// Transitions count as shipped although the event store was away.
    ShippedAssumed,
    /// Effects that must wait for a held status, such as shipping its transitions, run before it is written.
    HeldOvertaken,
    /// The controller ignores a request for an export.
    ExportForgotten,
    /// The files of an export stay.
    ExportKept,
    /// An export goes on while its files are deleted.
    ExportGoesOn,
    /// After a lost status, a tenant that was served counts as new.
    ServiceForgotten,
    /// A subscription that was cancelled at Stripe is to be paused.
    EndedPaused,
    /// The identity is written again and again.
    IdentityNeverSettled,
    /// Decisions are made by the clock of the controller's machine.
    OwnClockBelieved,
    /// A customer whom the account does not know counts as deleted.
    UnknownCountsAsDeleted,
    /// The status is written for ever, each time another one: a livelock.
    StatusNeverSettled,
    /// A namespace is asked for again and again, although it is there: a livelock without a write.
    NamespaceNeverSettled,
}

impl Mistake {
    /// What a decision that makes this mistake would see.
    pub fn tamper(self, view: &mut View, observed: &mut Observed) {
        let failed = view.status.phase == Some(Phase::Failed);
        let upgrading = view.status.phase == Some(Phase::Upgrading);
        match self {
            Self::SamplesAssumedSeen if observed.samples == Samples::Stored => observed.samples = Samples::Seen,
            Self::SentForgotten => view.sent.clear(),
            Self::AttemptsForgotten => {
                if let Some(p) = &mut view.status.provisioning {
                    p.attempts = 0;
                }
            }
            Self::PauseUnseen => subscription(observed, |s| s.paused &= failed),
            Self::PauseForgotten => subscription(observed, |s| s.paused |= failed),
            Self::RefundForgotten if failed && view.status.refund.is_none() => {
                view.status.refund =
                    Some(Refund { amount: 0, currency: None, at: Timestamp::from_second(0), waived: false });
            }
            Self::ServiceForgotten if view.status.phase == Some(Phase::Provisioning) => {
                view.status.provisioned_at = None;
                view.sent.remove(&Notice::Welcome.key());
            }
            Self::EndedPaused if failed => subscription(observed, |s| {
                if s.status == "canceled" {
                    s.status = "active".into();
                }
            }),
            Self::KeyAssumedPresent => observed.api_key = Some(true),
            Self::IncompleteCountsAsPaid => subscription(observed, |s| {
                if s.status == "incomplete" {
                    s.status = "active".into();
                }
            }),
            Self::IdsNotStored => {
                let billing = observed.billing.as_ref();
                view.spec.billing.stripe = billing.map(|b| StripeRefs {
                    customer_id: b.customer_id.clone(),
                    subscription_id: b.subscription.as_ref().map(|s| s.id.clone()),
                    checkout_attempt: view.spec.billing.stripe.as_ref().and_then(|s| s.checkout_attempt),
                });
            }
            Self::ExpiredLinkShown => {
                if let Some(session) = observed.billing.as_mut().and_then(|b| b.session.as_mut())
                    && session.state == SessionState::Expired
                {
                    (session.state, session.url) = (SessionState::Open, Some("https://pay".into()));
                }
            }
            Self::RetryIgnored => view.retry_token = None,
            Self::EndUnseen if view.status.phase == Some(Phase::Active) => subscription(observed, |s| {
                if s.status == "canceled" {
                    s.status = "active".into();
                }
            }),
            Self::SuspendedAndCharged if view.status.phase == Some(Phase::Suspended) => {
                subscription(observed, |s| s.paused = true);
            }
            Self::ResumeIgnored if view.status.phase == Some(Phase::Suspended) => {
                view.spec.desired = Desired::Suspended;
            }
            Self::SuspensionLifted if view.spec.desired == Desired::Active => view.spec.suspension = None,
            Self::ChargedBlindly if upgrading => subscription(observed, |s| s.price = None),
            Self::ChangedUnpaid if upgrading => subscription(observed, bills_larger),
            Self::ChangedTooSoon => {
                if let Some(change) = view.status.plan_change.as_mut().filter(|c| c.effective_at.is_some()) {
                    change.effective_at = Some(Timestamp::from_second(0));
                }
            }
            Self::WishInForce if view.status.config.is_none() => {
                view.spec.plan_in_force = Some(view.spec.plan.clone());
            }
            Self::ScheduleForgotten => subscription(observed, |s| s.plan_before = None),
            Self::WishIgnored if view.status.phase == Some(Phase::Active) => {
                view.spec.plan = view.plan_in_force().to_owned();
            }
            Self::UndoForgotten => {
                let wish = view.spec.plan.clone();
                view.status.plan_change = view.status.plan_change.take().filter(|c| *c.plan == wish);
            }
            Self::DeclineUnheard if upgrading => {
                observed.failed.values_mut().chain(&mut observed.failure).for_each(|failure| failure.retryable = true);
            }
            Self::PriceUnseen if view.status.phase == Some(Phase::Active) => {
                let price = if view.plan_in_force() == LARGER { "price_2" } else { "price_1" };
                subscription(observed, |s| s.price = Some(price.into()));
            }
            Self::ErasedTooSoon => {
                view.status.erases_at = view.status.erases_at.map(|_| Timestamp::from_second(0));
            }
            Self::TakeBackIgnored if view.status.phase == Some(Phase::Deleting) => {
                view.spec.desired = Desired::Deleted;
            }
            Self::EndForgotten => subscription(observed, |s| (s.ends, s.closed_at) = (false, None)),
            Self::OutboxForgotten => observed.shipped = i64::MAX,
            Self::ShippedAssumed if observed.unshipped => observed.shipped = i64::MAX,
            Self::ExportForgotten => view.spec.export_request = None,
            Self::IntentAssumed => view.erase = true,
            Self::ConfirmationAssumed => view.email_verified = true,
            Self::IdentityNeverSettled => view.credentials.proof = false,
            Self::NamespaceNeverSettled => observed.namespace = false,
            _ => {}
        }
    }

    /// What it would answer.
    pub fn distort(self, view: &View, decision: Decision) -> Decision {
        let without = |unwanted: fn(&Effect) -> bool| match &decision {
            Decision::Act(effects) => {
                let rest: Vec<_> = effects.iter().filter(|e| !unwanted(e)).cloned().collect();
                if rest.is_empty() { Decision::Wait(None) } else { Decision::Act(rest) }
            }
            other => other.clone(),
        };
        match self {
            Self::NoteForgotten => without(|e| matches!(e, Effect::MarkSent(_))),
            Self::ExportKept => without(|e| *e == Effect::DeleteExports),
            Self::NamespaceKept => without(|e| *e == Effect::DeleteNamespace),
            Self::CertificateUnsent => match without(|e| *e == Effect::Notify(Notice::Erased)) {
                Decision::Wait(None) if view.status.erasure.is_some() => Decision::Act(vec![Effect::EraseIdentity]),
                other => other,
            },
            Self::RenewalGoesOn => match decision {
                Decision::Act(effects) if effects == [Effect::StopRenewal] => {
                    let since = view.status.transitions.last().map_or(view.created_at, |t| t.timestamp);
                    Decision::Act(vec![Effect::Notify(Notice::DeletionRequested(since))])
                }
                other => other,
            },
            Self::ResumeForgotten => without(|e| matches!(e, Effect::ResumeCollection | Effect::CollectAnew)),
            Self::ServedUnpaid => match decision {
                Decision::Act(effects) if effects == [Effect::CollectAnew] => {
                    Decision::Act(vec![Effect::ResumeCollection])
                }
                other => other,
            },
            Self::AlertForgotten => without(|e| matches!(e, Effect::Notify(Notice::FailedAlert(_)))),
            Self::FailedMailForgotten => without(|e| matches!(e, Effect::Notify(Notice::FailedMail(_)))),
            Self::ConfirmationForgotten => without(|e| matches!(e, Effect::Notify(Notice::Link(_)))),
            Self::WelcomeForgotten => without(|e| *e == Effect::Notify(Notice::Welcome)),
            Self::AttemptNotNumbered => match decision {
                Decision::Act(effects) if matches!(effects[..], [Effect::NextCheckout { .. }]) => {
                    let attempt = view.spec.billing.stripe.as_ref().and_then(|s| s.checkout_attempt).unwrap_or(1);
                    Decision::Act(vec![Effect::OpenCheckout { attempt }])
                }
                other => other,
            },
            Self::FinalizerRemovedFirst => match decision {
                Decision::Act(effects) if effects.contains(&Effect::DeleteNamespace) => {
                    Decision::Act(vec![Effect::RemoveFinalizer])
                }
                other => other,
            },
            Self::CancelForgotten => match without(|e| matches!(e, Effect::CancelBilling | Effect::EraseBilling)) {
                Decision::Wait(None) if view.deleting && view.finalizer => Decision::Act(vec![Effect::RemoveFinalizer]),
                other => other,
            },
            Self::WelcomeHidesRest => match decision {
                Decision::Record(status)
                    if view.status.phase == Some(Phase::Active)
                        && status.phase == view.status.phase
                        && !view.noted(&Notice::Welcome) =>
                {
                    Decision::Wait(Some(30))
                }
                other => other,
            },
            Self::TransitionForgotten => match decision {
                Decision::Record(mut status) if status.phase != view.status.phase => {
                    status.transitions.pop();
                    Decision::Record(status)
                }
                other => other,
            },
            Self::StatusNeverSettled => match decision {
                Decision::Wait(_) => {
                    let message = view.status.message.clone().unwrap_or_default();
                    let message = if message.ends_with('!') { "?".into() } else { format!("{message}!").into() };
                    Decision::Record(Box::new(TenantStatus { message: Some(message), ..view.status.clone() }))
                }
                other => other,
            },
            _ => decision,
        }
    }
}

/// Stripe bills the larger plan, and names it.
fn bills_larger(subscription: &mut ObservedSubscription) {
    (subscription.price, subscription.plan) = (Some("price_2".into()), Some("q".into()));
}

fn subscription(observed: &mut Observed, change: impl FnOnce(&mut ObservedSubscription)) {
    if let Some(subscription) = observed.billing.as_mut().and_then(|b| b.subscription.as_mut()) {
        change(subscription);
    }
}
