//! The clock of this machine, compared with Stripe's: webhooks older than five minutes are refused.

use futures::FutureExt;

use super::{Check, CheckOutcome, Target};
use crate::api::Timestamp;

/// Seconds of difference that go unnoticed.
const FINE: i64 = 5;
/// Seconds at which signatures are about to be refused: Stripe's tolerance is 300.
const WRONG: i64 = 120;

pub const CHECKS: &[Check] = &[Check {
    name: "clock/skew",
    blocks_start: false,
    title: "the clock is right",
    about: "The controller and web use the API server's clock, and refuse Stripe's webhooks if it is off by more than \
        five minutes.",
    needs: None,
    writes: false,
    run: |target| skew(target).boxed(),
}];

async fn skew(target: &Target) -> CheckOutcome {
    let Some((stripe, _)) = &target.stripe else {
        return CheckOutcome::Skipped("compared with Stripe's, whose key is not set".into());
    };
    let Some(theirs) = stripe.clock().await else { return CheckOutcome::Skipped("Stripe says no time".into()) };
    let off = Timestamp::now().since(theirs);
    let reason = format!("it is {} s {} Stripe's", off.abs(), if off > 0 { "ahead of" } else { "behind" });
    let fix = "Start a time service such as chrony on the nodes";
    if off.abs() <= FINE {
        CheckOutcome::Ok(format!("{off} s from Stripe's"))
    } else if off.abs() <= WRONG {
        CheckOutcome::warning(reason, fix)
    } else {
        CheckOutcome::failed(reason, fix)
    }
}
