//! Tells customers that they have used 80 and 100 percent of a limit: once for each limit and period, and once for all
//! limits that are reached at the same moment.
//!
//! What was reached is a fact of its own in the status, beside the usage, which the controller replaces every minute
//! from the ledger. It ends when the usage is below 80 percent again, or with the period of a unit that is counted in
//! periods. The controller records each e-mail with all other notices, in the annotation that outlives the status.

use strum::IntoEnumIterator;

use crate::api::quota::UsageNotices;
use crate::api::usage::{CountedUsage, Reached};
use crate::api::{Phase, TenantStatus, Unit};
use crate::lifecycle::notice::told;
use crate::lifecycle::status::Draft;
use crate::lifecycle::{Input, Notice, View};

/// The shares of a limit that the controller e-mails about, in percent. If usage passes both at once, only the higher
/// one is sent.
const SHARES: [u8; 2] = [100, 80];

/// Writes down what is reached now.
pub fn note(input: &Input, draft: &mut Draft) {
    draft.status.usage_reached = reached(input, &draft.status, input.observed.usage_mails_held);
}

/// The e-mails that are due: their share is recorded in the status, is still reached, and has not been e-mailed.
pub fn due(input: &Input) -> Vec<Notice> {
    let status = &input.tenant.status;
    let mut open = reached(input, status, false);
    open.retain(|reached| status.usage_reached.contains(reached) && !told(&input.tenant.sent, reached));
    let of = |percent| open.iter().filter(|reached| reached.percent == percent).copied().collect::<Vec<_>>();
    let notices = SHARES.map(|percent| Notice::UsageReached { percent, what: of(percent) });
    notices.into_iter().filter(|n| matches!(n, Notice::UsageReached { what, .. } if !what.is_empty())).collect()
}

/// Seconds until the controller checks held e-mails again.
pub fn wait(input: &Input) -> Option<i64> {
    is_held(input).then_some(input.policy.resync)
}

/// Whether an e-mail would begin now, and is held because too many customers would get one.
pub fn is_held(input: &Input) -> bool {
    let status = &input.tenant.status;
    let served = status.phase == Some(Phase::Active);
    served && input.observed.usage_mails_held && reached(input, status, false) != reached(input, status, true)
}

/// Whether a status has something for the customer to be told that the one before had not.
pub fn begins(tenant: &View, after: &TenantStatus) -> bool {
    let before = &tenant.status.usage_reached;
    after.usage_reached.iter().any(|reached| !before.contains(reached) && !told(&tenant.sent, reached))
}

/// What is reached by the limits and the usage of this status. While e-mails are held, nothing begins that is untold.
fn reached(input: &Input, status: &TenantStatus, held: bool) -> Vec<Reached> {
    let Some((usage, config)) = status.usage.as_ref().zip(status.config.as_ref()) else { return Vec::new() };
    if config.quota.notify == UsageNotices::None {
        return Vec::new();
    }
    let of = |unit: Unit| {
        let in_force = |reached: &Reached| unit.is_level() || reached.period_start == usage.period_start;
        let before = status.usage_reached.iter().find(|reached| reached.unit == unit).copied().filter(in_force);
        let now = after(before, input, usage, unit, config.limits.of(unit)?)?;
        let begins = before != Some(now) && !told(&input.tenant.sent, &now);
        if begins && held { before } else { Some(now) }
    };
    Unit::iter().filter_map(of).collect()
}

/// What is reached of one unit, after what was before. None below the lowest share.
fn after(before: Option<Reached>, input: &Input, usage: &CountedUsage, unit: Unit, limit: i64) -> Option<Reached> {
    // The ledger begins the next period with the next thing that it counts.
    let over = !unit.is_level() && input.now >= usage.period_end;
    let used = if over { 0 } else { usage.of(unit).used };
    let percent = SHARES.into_iter().find(|percent| uses(used, limit, *percent))?;
    // Between the shares, what was told counts: only a larger limit makes the lower share news.
    let known = |before: &Reached| before.percent == percent || (before.percent > percent && before.limit >= limit);
    let new = Reached { unit, percent, limit, period_start: usage.period_start, since: input.now };
    Some(before.filter(known).unwrap_or(new))
}

/// Whether so many percent of a limit are used. A unit that the plan does not have has no share.
fn uses(used: i64, limit: i64, percent: u8) -> bool {
    limit > 0 && i128::from(used) * 100 >= i128::from(limit) * i128::from(percent)
}
