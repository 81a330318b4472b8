//! What other services tell of. The ledger counts each event once, in the period of its time. Nothing is kept here: a
//! service sends again what the ledger did not answer.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use futures::{StreamExt, TryStreamExt, stream};

use super::{Metering, counted, refusal};
use crate::api::usage::Quota;
use crate::api::{Timestamp, months};
use crate::ledger::PERIOD_AHEAD;
use crate::ledger::account::Period;
use crate::ledger::client::CallError;
use crate::ledger::units::Amounts;
use crate::ledger::wire::{Event, EventState, Events};
use crate::web::serving::directory::Served;
use crate::web::serving::problem::Problem;

/// Events of one call to the ledger. The longest there are stay below the ledger's limit of a body.
const BATCH: usize = 2_500;
/// Tenants of one call: each is a transaction of its own where the ledger keeps its data in Postgres.
const TENANTS: usize = 250;
/// Tenants whose periods are looked up at the same time.
const AT_ONCE: usize = 32;
/// Seconds. The ledger refuses what is older than 35 days, so the period of what is older is no matter.
const OLD: i64 = 36 * 24 * 3600;

/// What another service says was used.
pub struct UsedElsewhere {
    /// Whose use it is: a tenant with a plan and a quota.
    pub tenant: Arc<Served>,
    /// The service.
    pub source: String,
    /// The event's name there.
    pub id: String,
    /// When it happened.
    pub time: Timestamp,
    /// What was used.
    pub amounts: Amounts,
}

/// The starts of the periods that this replica has begun at the ledger, by the tenants' ids.
#[derive(Default)]
pub struct BegunPeriods(Mutex<HashMap<String, Timestamp>>);

impl BegunPeriods {
    fn has(&self, tenant: &str, start: Timestamp) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(tenant) == Some(&start)
    }

    fn note(&self, tenant: &str, start: Timestamp) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(tenant.to_owned(), start);
    }
}

/// The periods of a tenant.
struct Periods {
    present: Period,
    /// Those before it that the ledger knows, if an event asks for them.
    earlier: Vec<Period>,
    /// Gives the others their day, for a tenant that pays by Stripe. Without it, they have 30 days.
    anchor: Option<Timestamp>,
}

impl Periods {
    /// The period of a moment: the latest that had begun. Where none is known, it is the period that the tenant would
    /// have had, as far as it is in no period that is known.
    fn of(&self, time: Timestamp) -> Period {
        let known = || self.earlier.iter().chain([&self.present]);
        let begun = known().filter(|period| period.start <= time).max_by_key(|period| period.start);
        if let Some(period) = begun.filter(|period| time < period.end) {
            return *period;
        }
        let (start, end) = if let Some(anchor) = self.anchor {
            months::around(anchor, time)
        } else {
            let near = begun.or_else(|| known().min_by_key(|period| period.start));
            Quota::days_from(near.map_or(self.present.start, |period| period.start), time)
        };
        let before = known().map(|period| period.end).filter(|end| *end <= time).max();
        let after = known().map(|period| period.start).filter(|start| *start > time).min();
        Period {
            start: before.map_or(start, |before| start.max(before)),
            end: after.map_or(end, |after| end.min(after)),
        }
    }
}

/// The ledger is away.
pub fn unavailable() -> Problem {
    refusal::unavailable().told(
        "Usage events cannot be counted at the moment. Send all of them again in a few seconds: what was counted counts \
         once.",
    )
}

fn of(error: &CallError) -> Problem {
    match error {
        CallError::Unavailable(_) => unavailable(),
        CallError::Refused { code, .. } if code == PERIOD_AHEAD => {
            tracing::error!(%error, "this machine's clock and the ledger's differ");
            unavailable()
        }
        other => Problem::internal("usage events", other),
    }
}

/// How many of the events are sent in one call.
fn batch(events: &[Event]) -> usize {
    let mut tenants = HashSet::new();
    let fit = |event: &&Event| {
        tenants.insert(String::from(event.tenant.clone()));
        tenants.len() <= TENANTS
    };
    events.iter().take(BATCH).take_while(fit).count()
}

impl Metering {
    /// Counts what was used elsewhere, whatever the limits. Answers a state for each, in order.
    pub async fn count_elsewhere(
        self: &Arc<Self>,
        used: Vec<UsedElsewhere>,
        now: Timestamp,
    ) -> Result<Vec<EventState>, Problem> {
        let periods = self.periods_of_all(&used, now).await?;
        let event = |used: UsedElsewhere| {
            let UsedElsewhere { tenant, source, id, time, amounts } = used;
            let periods = periods.get(&tenant.id).ok_or_else(Problem::unavailable)?;
            // An event of before 1970 has no period; the ledger refuses its time.
            let period = if now.since(time) > OLD { periods.present } else { periods.of(time) };
            let unusable = |why: String| Problem::internal("an event of a tenant", &why);
            let (tenant, period) = (tenant.id.clone().try_into(), period.try_into());
            Ok(Event {
                source,
                id,
                tenant: tenant.map_err(unusable)?,
                period: period.map_err(unusable)?,
                amounts,
                time,
            })
        };
        let mut events = used.into_iter().map(event).collect::<Result<Vec<_>, Problem>>()?;
        let mut states = Vec::with_capacity(events.len());
        while !events.is_empty() {
            let later = events.split_off(batch(&events));
            let batch = Events { events: std::mem::replace(&mut events, later) };
            if self.is_away() {
                return Err(unavailable());
            }
            // A batch may take long where the ledger is well: a failure here does not make it away for all tenants.
            let told = self.ledger.events(&batch).await.map_err(|error| of(&error))?.events;
            if told.len() != batch.events.len() {
                return Err(Problem::internal("usage events", &"the ledger answers for other events"));
            }
            states.extend(told);
        }
        Ok(states)
    }

    async fn periods_of_all(
        self: &Arc<Self>,
        used: &[UsedElsewhere],
        now: Timestamp,
    ) -> Result<HashMap<String, Periods>, Problem> {
        // Each tenant once, with the oldest of its events that the ledger may count.
        let mut tenants: HashMap<&str, (&Arc<Served>, Timestamp)> = HashMap::new();
        for UsedElsewhere { tenant, time, .. } in used {
            let oldest = &mut tenants.entry(&tenant.id).or_insert((tenant, now)).1;
            if now.since(*time) <= OLD {
                *oldest = (*oldest).min(*time);
            }
        }
        let tenants: Vec<_> = tenants.into_values().map(|(tenant, oldest)| (tenant.clone(), oldest)).collect();
        let periods = stream::iter(tenants).map(|(tenant, oldest)| async move {
            let periods = self.periods(&tenant, oldest, now).await?;
            Ok::<_, Problem>((tenant.id.clone(), periods))
        });
        periods.buffer_unordered(AT_ONCE).try_collect().await
    }

    /// The periods of a tenant back to a moment. The present one begins at the ledger, which events alone do not do: it
    /// would show what was used in the last period in which a question was asked.
    async fn periods(self: &Arc<Self>, tenant: &Served, oldest: Timestamp, now: Timestamp) -> Result<Periods, Problem> {
        let account = self.account(tenant, now).await?;
        let present = Period::from(account.period);
        if !self.begun.has(&tenant.id, present.start) {
            let name = format!("begin-{}-{}", tenant.id, present.start.as_second());
            let begun = self.ask(self.ledger.settle(&name, &counted(&account, Amounts::ZERO))).await;
            begun.map_err(|error| of(&error))?;
            self.begun.note(&tenant.id, present.start);
        }
        let mut earlier = Vec::new();
        if oldest < present.start {
            let known = self.ask(self.ledger.periods(&tenant.id)).await.map_err(|error| of(&error))?;
            earlier.extend(known.iter().map(|known| known.period).filter(|known| known.start < present.start));
        }
        let anchor = tenant.quota.as_ref().and_then(|quota| quota.anchor);
        Ok(Periods { present, earlier, anchor })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(day: &str) -> Timestamp {
        format!("2027-{day}T10:23:45Z").parse().expect("a time")
    }

    fn period(start: &str, end: &str) -> Period {
        Period { start: at(start), end: at(end) }
    }

    #[test]
    fn periods_without_an_anchor_have_30_days() {
        let day = |day: i64| Timestamp::from_second(day * 24 * 3600);
        let period = |start: i64, end: i64| Period { start: day(start), end: day(end) };
        // The plan changed on day 110 and began a period of its own.
        let earlier = vec![period(110, 140), period(90, 120)];
        let periods = Periods { present: period(200, 230), earlier, anchor: None };
        for (moment, start) in
            [(229, 200), (200, 200), (231, 230), (199, 170), (140, 140), (139, 110), (110, 110), (109, 90), (89, 60)]
        {
            assert_eq!(periods.of(day(moment)), period(start, start + 30), "day {moment}");
        }
        let new = Periods { present: period(200, 230), earlier: Vec::new(), anchor: None };
        assert_eq!(new.of(day(166)), period(140, 170), "before the tenant was there");
    }

    #[test]
    fn an_event_counts_in_the_period_of_its_time() {
        // A subscription began on 12 March, in the middle of a period of the one before.
        let earlier = vec![period("03-12", "04-10"), period("02-28", "03-28")];
        let periods = Periods { present: period("06-30", "07-31"), earlier, anchor: Some(at("05-31")) };
        for (day, start, end) in [
            ("07-30", "06-30", "07-31"),
            ("06-30", "06-30", "07-31"),
            ("07-31", "07-31", "08-31"),
            ("06-29", "05-31", "06-30"),
            ("05-31", "05-31", "06-30"),
            ("05-30", "04-30", "05-31"),
            ("04-11", "04-10", "04-30"),
            ("04-10", "04-10", "04-30"),
            ("04-09", "03-12", "04-10"),
            ("03-11", "02-28", "03-28"),
            ("02-27", "01-31", "02-28"),
        ] {
            assert_eq!(periods.of(at(day)), period(start, end), "{day}");
        }
        let last_second = at("06-30").plus(-1);
        assert_eq!(periods.of(last_second), period("05-31", "06-30"));
        let new = Periods { present: period("03-15", "03-31"), earlier: Vec::new(), anchor: Some(at("01-31")) };
        assert_eq!(new.of(at("03-10")), period("02-28", "03-15"), "before the tenant was there");
    }
}
