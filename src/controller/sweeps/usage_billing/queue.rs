//! When each tenant is due, and who comes first.
//!
//! A tenant is due once an hour, after the ledger has closed the hour before, at a moment of its own: ten thousand
//! tenants do not all come at the full hour. What is counted of them is different, so those that used something come
//! first.
//!
//! What 10,000 tenants need, each with 5 units that are used in every hour: a look reads the subscription once, and of
//! each unit the sum, and sends one event. That is 11 calls to Stripe, one after the other, as Stripe takes one call at
//! a time for a customer and a meter. 110,000 calls an hour are 31 a second, of which 14 are meter events: Stripe takes
//! 1,000 of those a second in live mode, and 100 calls a second in all. The operator's own limit, `--stripe-rate`, is
//! 20: set 50. A call takes 0.2 s, so a look takes 2.5 s with Kubernetes and the ledger, and 16 looks at once
//! (`--usage-billing-concurrency`) do 23,000 of them an hour. With 20 calls a second, 6,500 such tenants fit, or 10,000
//! whose units are idle in half of the hours.

use std::hash::{DefaultHasher, Hash, Hasher};

use kube::ResourceExt;
use strum::IntoEnumIterator;

use super::plan_of;
use crate::api::{SETTLE_USAGE_ANNOTATION, Tenant, Timestamp, Unit};
use crate::controller::context::Context;

const HOUR: i64 = 3600;
/// Seconds after which the ledger has closed an hour.
const CLOSES: i64 = 10;
/// Seconds over which the tenants of an hour are spread, at most. The rest of the hour is for those that were late, and
/// for the grace of invoices, which is an hour from the end of a period.
const SPREAD: i64 = 40 * 60;
/// Tenants that are looked at in a second while they are spread.
const PACE: i64 = 4;
/// Seconds after which it is looked again whether a person has ended a trouble.
const RETRY: i64 = 10 * 60;

/// What the controller's cache says about a tenant, without a call to Stripe or the ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The plan in force, and its generation.
    pub plan: (String, Option<i64>),
    /// What the status shows of its use: since when, and how much of all units.
    pub used: Option<(Timestamp, i64)>,
    /// What a person has decided.
    pub choice: Option<String>,
}

impl Seen {
    /// Of a tenant.
    pub fn of(context: &Context, tenant: &Tenant) -> Self {
        let usage = tenant.status.as_ref().and_then(|status| status.usage.as_ref());
        let all = |usage: &crate::api::usage::CountedUsage| Unit::iter().map(|unit| usage.of(unit).used).sum();
        Self {
            plan: plan_of(context, tenant),
            used: usage.map(|usage| (usage.period_start, all(usage))),
            choice: tenant.annotations().get(SETTLE_USAGE_ANNOTATION).cloned(),
        }
    }
}

/// What is remembered of a tenant between two looks.
#[derive(Clone, Debug)]
pub struct Known {
    pub looked_at: Timestamp,
    /// What there was to see at the last look.
    pub seen: Seen,
    pub soon: bool,
    pub sent_at: Option<Timestamp>,
    /// Since when only troubles that go by themselves were met.
    pub passing_since: Option<Timestamp>,
    /// The reason of a trouble that is shown.
    pub trouble: Option<&'static str>,
}

impl Known {
    /// Of a tenant that this process has not looked at yet. The process before may have sent something just now, and so
    /// may this one for an object that was deleted and came back.
    pub fn new(started: Timestamp, created: Timestamp) -> Self {
        Self {
            looked_at: started,
            seen: Seen::default(),
            soon: true,
            sent_at: Some(started.max(created)),
            passing_since: None,
            trouble: None,
        }
    }
}

/// How tenants are scheduled.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    /// Since when this process sends.
    pub started: Timestamp,
    /// Seconds over which tenants are spread.
    pub spread: i64,
    /// Seconds from a look to another one that is worth to be made soon.
    pub soon: i64,
    /// Seconds that the controller waits at most before it looks at a tenant again.
    pub again: i64,
}

/// Seconds over which so many tenants are spread. Few ones have no reason to wait.
pub fn spread(tenants: usize) -> i64 {
    i64::try_from(tenants).map_or(SPREAD, |tenants| (tenants / PACE).min(SPREAD))
}

impl Schedule {
    /// The tenant's own moment within the spread: the same one in each hour.
    fn offset(&self, uid: &str) -> i64 {
        let mut hash = DefaultHasher::new();
        uid.hash(&mut hash);
        let within = hash.finish() % u64::try_from(self.spread + 1).unwrap_or(1);
        i64::try_from(within).unwrap_or(0)
    }

    /// When a tenant is due.
    fn due_at(&self, uid: &str, known: Option<&Known>, seen: &Seen) -> Timestamp {
        // A tenant that this process has not looked at is late in its hour, or its moment is still to come. It is not
        // spread from the start of the process: one that restarts often would never come to the last ones.
        let Some(known) = known else {
            let moment = |hour: Timestamp| hour.plus(CLOSES + self.offset(uid));
            let hour = self.started.hour();
            let next = if moment(hour) < self.started { hour.plus(HOUR) } else { hour };
            return self.started.plus(self.offset(uid)).min(moment(next));
        };
        if known.seen.plan != seen.plan || known.seen.choice != seen.choice {
            return known.looked_at;
        }
        let hour = known.looked_at.hour().plus(HOUR + CLOSES + self.offset(uid));
        let again = if known.trouble.is_some() { self.again.min(RETRY) } else { self.again };
        let again = if known.soon { again.min(self.soon) } else { again };
        // An hour or more adds nothing to the tenant's own moment, and would move it.
        if again < HOUR { hour.min(known.looked_at.plus(again)) } else { hour }
    }

    /// The place of a tenant in the line, or None for one that is not due. One that used something since the last look
    /// has an hour's head start: those that are idle come after it, and their turn comes in the end.
    pub fn place(&self, uid: &str, known: Option<&Known>, seen: &Seen, now: Timestamp) -> Option<i64> {
        let due = self.due_at(uid, known, seen);
        let idle = known.is_some_and(|known| known.seen.used == seen.used);
        (due <= now).then(|| due.as_second() + if idle { HOUR } else { 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: i64 = 1_800_014_400;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(NOON + second)
    }

    fn seen(used: i64) -> Seen {
        Seen { plan: ("metered".into(), Some(1)), used: Some((at(0), used)), choice: None }
    }

    fn known(looked_at: i64) -> Known {
        Known { looked_at: at(looked_at), seen: seen(5), soon: false, ..Known::new(at(0), at(0)) }
    }

    fn schedule(tenants: usize) -> Schedule {
        Schedule { started: at(0), spread: spread(tenants), soon: 60, again: HOUR }
    }

    /// Seconds after noon at which each of so many tenants is due, if it was looked at five minutes before noon.
    fn due(tenants: usize) -> Vec<i64> {
        let schedule = schedule(tenants);
        let one = |number: usize| {
            let before = Known { soon: false, ..known(-HOUR + 1) };
            schedule.due_at(&format!("uid-{number}"), Some(&before), &seen(5)).since(at(0))
        };
        (0..tenants).map(one).collect()
    }

    #[test]
    fn tenants_are_due_once_an_hour_and_spread_over_it() {
        let one = schedule(1);
        assert_eq!(one.due_at("a", Some(&known(-10)), &seen(5)), at(CLOSES), "alone, it does not wait");
        let all = due(10_000);
        assert!(all.iter().all(|due| (CLOSES..=CLOSES + SPREAD).contains(due)), "{all:?}");
        let schedule = schedule(10_000);
        let mut minutes = vec![0; 41];
        for number in 0..10_000 {
            let offset = schedule.offset(&format!("uid-{number}"));
            minutes[usize::try_from(offset / 60).expect("small")] += 1;
        }
        assert!(minutes[..40].iter().all(|count| (150..350).contains(count)), "about 250 a minute: {minutes:?}");
    }

    #[test]
    fn a_tenant_is_due_again_where_a_look_is_worth_it() {
        let (schedule, hourly) = (schedule(10_000), known(60));
        let due = |known: &Known, seen: &Seen| schedule.due_at("a", Some(known), seen).since(known.looked_at);
        assert_eq!(due(&Known { soon: true, ..hourly.clone() }, &seen(5)), 60);
        assert_eq!(due(&Known { trouble: Some("NumbersDiffer"), ..hourly.clone() }, &seen(5)), RETRY);
        let other = Seen { plan: ("other".into(), Some(1)), ..seen(5) };
        assert_eq!(due(&hourly, &other), 0, "its plan has changed");
        let decided = Seen { choice: Some("stripe".into()), ..seen(5) };
        assert_eq!(due(&hourly, &decided), 0, "a person has decided");
        assert!((0..=SPREAD).contains(&schedule.due_at("a", None, &seen(0)).since(at(0))), "after a start");
    }

    #[test]
    fn a_process_that_restarts_often_looks_at_every_tenant_within_the_hour() {
        let schedule = schedule(10_000);
        for number in 0..1000 {
            let uid = format!("uid-{number}");
            let starts = (0..12).map(|restart| at(restart * 300));
            let looks = starts.filter(|started| {
                let due = Schedule { started: *started, ..schedule }.due_at(&uid, None, &seen(0));
                due < started.plus(300)
            });
            assert!(looks.count() > 0, "{uid}");
        }
    }

    #[test]
    fn those_that_used_something_come_first_and_the_others_come_in_the_end() {
        let schedule = schedule(1);
        let place = |looked_at, used, now| schedule.place("a", Some(&known(looked_at)), &seen(used), at(now));
        assert_eq!(place(60, 6, 100), None, "not due");
        let (busy, idle) = (place(60, 6, HOUR + 600), place(60, 5, HOUR + 600));
        assert!(busy.is_some() && busy < idle);
        let late = 3 * HOUR + 20;
        assert!(place(60, 5, late) < place(2 * HOUR + 60, 6, late), "an idle one that waits for long");
    }
}
