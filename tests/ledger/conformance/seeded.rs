//! Stores with a seeded fault: each breaks the contract that is about it.

mod faults;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tenant_operator::api::Timestamp;
use tenant_operator::ledger::account::{Account, Period};
use tenant_operator::ledger::decision::{Action, Answer, Command, Refusal};
use tenant_operator::ledger::store::{
    Answers, Changed, ClosedHour, ClosedHours, Day, Pending, Store, StoreError, StoredLine, Waiting,
};
use tenant_operator::ledger::units::{Amounts, Limits, Unit};

use faults::CAUGHT;
use faults::Seeded::{
    self, AllPeriods, AnotherPeriod, AnswersBeforeTheWrite, AnswersEventsOutOfOrder, AppliesTwice, ChangedOnly,
    ChecksThenCounts, CountsMoreThanReserved, CutsNames, DaysOfTheMachine, FoldsNames, ForgetsCheckpoints,
    ForgetsEarly, ForgetsEarlyVoids, ForgetsEvents, ForgetsNames, ForgetsNothing, ForgetsPending, HoursCutByPages,
    HoursOfLines, HoursOfMoves, HoursThatAreOpen, IgnoresThePage, KeepsEndedPending, LeavesOutTheLastDay,
    LevelsBeginAtZero, LevelsLeftOut, LosesACommit, LosesAnEvent, OldestPeriodFirst, OneMoreThanTheLimit,
    RefusalTakesTheName, RefusesLateSettlements, ReleasesAgain, ReleasesNothing, ReopensPeriods, RepeatsALine,
    ReservesWhatFits, RoundsAsFloats, SiteOfOneTenant, SkipsALine, VoidsNothing, WritesWhenItIsClosed,
};

use super::sqlite::SqliteFolder;
use super::{Place, judge};

/// A real store with a fault.
#[derive(Debug)]
struct Faulty {
    store: Arc<dyn Store>,
    has: Seeded,
    /// Commands so far.
    count: AtomicUsize,
    /// Names that were refused, or are pending.
    names: Mutex<BTreeMap<String, Pending>>,
    /// Commands that wait until it is closed.
    waiting: Mutex<Vec<(Command, Timestamp)>>,
}

impl Faulty {
    async fn real(&self, command: Command, now: Timestamp) -> Result<Answer, StoreError> {
        self.store.apply(command, now).await
    }

    /// The answer to a settlement that a store gives that does not look.
    fn settled(command: &Command) -> Option<Answer> {
        let Action::Settle { amounts, .. } = command.action else { return None };
        Some(Answer::Settled { posted: amounts, excess: Amounts::ZERO })
    }

    fn renamed(command: Command, name: impl FnOnce(&str) -> String) -> Command {
        Command { operation: name(&command.operation), ..command }
    }

    fn tenant(&self, tenant: &str) -> String {
        match self.has {
            FoldsNames => tenant.trim().to_lowercase(),
            CutsNames => tenant.chars().take(127).collect(),
            _ => tenant.to_owned(),
        }
    }

    /// Looks at the account first, and counts afterwards.
    async fn checked(&self, mut command: Command, now: Timestamp) -> Result<Answer, StoreError> {
        if let Action::Reserve { limits, amounts, .. } = &mut command.action {
            let taken = self.store.usage(&command.tenant).await?.map(|(_, account)| account).unwrap_or_default();
            let taken = taken.used.plus(taken.reserved);
            let fits = |unit: Unit| limits.of(unit).is_none_or(|limit| taken[unit] + amounts[unit] <= limit);
            if fits(Unit::Queries) {
                *limits = Limits::default();
            }
        }
        self.real(command, now).await
    }

    /// With other amounts or limits.
    fn changed(&self, mut command: Command) -> Command {
        match (&mut command.action, self.has) {
            (Action::Reserve { limits, .. }, OneMoreThanTheLimit) => {
                if let Some(limit) = limits.of(Unit::Queries) {
                    *limits = limits.with(Unit::Queries, limit + 1);
                }
            }
            (Action::Reserve { amounts, .. } | Action::Settle { amounts, .. }, RoundsAsFloats) => {
                #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "the fault")]
                let rounded = |amount: i64, _| f64::from(amount as f32) as i64;
                *amounts = amounts.zip(Amounts::ZERO, rounded);
            }
            (Action::Checkpoint { amounts }, ForgetsCheckpoints)
            | (Action::Release { amounts, .. }, ReleasesNothing) => *amounts = Amounts::ZERO,
            (Action::Reserve { limits, .. }, LevelsBeginAtZero) => *limits = Limits::default(),
            (&mut Action::Move { period, amounts }, HoursOfMoves) => {
                command.action = Action::Settle { period, amounts }
            }
            _ => {}
        }
        command
    }

    /// Does once more what a command did, under another name.
    async fn once_more(&self, command: Command, now: Timestamp) -> Result<Answer, StoreError> {
        let answer = self.real(command.clone(), now).await?;
        let twice = match (self.has, &command.action, answer) {
            (AppliesTwice, Action::Settle { .. }, Answer::Settled { excess: Amounts::ZERO, .. }) => {
                Some(command.action)
            }
            (ReleasesAgain, Action::Release { .. }, Answer::Released) => Some(command.action),
            (CountsMoreThanReserved, Action::Settle { period, .. }, Answer::Settled { excess, .. })
                if !excess.is_zero() =>
            {
                Some(Action::Settle { period: *period, amounts: excess })
            }
            (ReservesWhatFits, Action::Reserve { period, amounts, limits, expires_after }, Answer::Refused(_)) => {
                let amounts = amounts.with(Unit::PromptTokens, 0);
                let (period, limits, expires_after) = (*period, *limits, *expires_after);
                Some(Action::Reserve { period, amounts, limits, expires_after })
            }
            _ => None,
        };
        if let Some(action) = twice {
            let operation = format!("{}+{}", command.operation, self.count.load(Ordering::SeqCst));
            self.real(Command { operation, tenant: command.tenant, action, at: None }, now).await?;
        }
        Ok(answer)
    }
}

#[async_trait]
impl Store for Faulty {
    async fn apply(&self, command: Command, now: Timestamp) -> Result<Answer, StoreError> {
        let count = self.count.fetch_add(1, Ordering::SeqCst);
        let command = Command { tenant: self.tenant(&command.tenant), ..command };
        let name = command.operation.clone();
        match (self.has, &command.action) {
            (LosesACommit, Action::Settle { .. }) if count % 7 == 3 => Ok(Self::settled(&command).expect("it settles")),
            (AnswersBeforeTheWrite, Action::Settle { .. }) => {
                let (store, answer) = (Arc::downgrade(&self.store), Self::settled(&command).expect("it settles"));
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    if let Some(store) = store.upgrade() {
                        drop(store.apply(command, now).await);
                    }
                });
                Ok(answer)
            }
            (WritesWhenItIsClosed, Action::Settle { .. }) => {
                let answer = Self::settled(&command).expect("it settles");
                self.waiting.lock().expect("not poisoned").push((command, now));
                Ok(answer)
            }
            (ChecksThenCounts, _) => self.checked(command, now).await,
            (ForgetsNames, Action::Reserve { .. }) => {
                self.real(Self::renamed(command, |name| format!("{name}+{count}")), now).await
            }
            (RefusalTakesTheName, _) => {
                if self.names.lock().expect("not poisoned").contains_key(&name) {
                    return Ok(Answer::Refused(Refusal::OtherParameters));
                }
                let answer = self.real(command, now).await?;
                if matches!(answer, Answer::Refused(_)) {
                    let taken = Pending { operation: name.clone(), tenant: String::new(), expires_after: 0 };
                    self.names.lock().expect("not poisoned").insert(name, taken);
                }
                Ok(answer)
            }
            (VoidsNothing, Action::Void { .. }) => Ok(Answer::Voided),
            (ForgetsEarlyVoids, Action::Void { .. }) => {
                let known = self.store.pending().await?.iter().any(|pending| pending.operation == name);
                if known { self.real(command, now).await } else { Ok(Answer::Voided) }
            }
            (RefusesLateSettlements, Action::Settle { .. }) => {
                let before = self.store.lines(0, 1000).await?;
                let has = before.iter().any(|line| line.operation == name);
                if has { Ok(Self::settled(&command).expect("it settles")) } else { self.real(command, now).await }
            }
            (ReopensPeriods, Action::Reserve { period, .. }) => {
                let latest = self.store.usage(&command.tenant).await?.map(|(period, _)| period);
                // A tenant for each period.
                let closed = latest.is_some_and(|latest| latest.start > period.start);
                let tenant =
                    if closed { format!("{}-{}", command.tenant, period.start.as_second()) } else { command.tenant };
                self.real(Command { tenant, ..command }, now).await
            }
            (KeepsEndedPending, Action::Reserve { expires_after, .. }) => {
                let pending =
                    Pending { operation: name.clone(), tenant: command.tenant.clone(), expires_after: *expires_after };
                self.names.lock().expect("not poisoned").insert(name, pending);
                self.real(command, now).await
            }
            _ => self.once_more(self.changed(command), now).await,
        }
    }

    async fn count(&self, events: Vec<Command>, now: Timestamp) -> Result<Vec<Answer>, StoreError> {
        let count = self.count.fetch_add(1, Ordering::SeqCst);
        match self.has {
            ForgetsEvents => {
                let renamed = |event| Self::renamed(event, |name| format!("{name}+{count}"));
                self.store.count(events.into_iter().map(renamed).collect(), now).await
            }
            AnswersEventsOutOfOrder => {
                let mut answers = self.store.count(events, now).await?;
                answers.reverse();
                Ok(answers)
            }
            LosesAnEvent if events.len() > 1 => {
                let answers = self.store.count(events[1..].to_vec(), now).await?;
                Ok(std::iter::once(Answer::Accepted).chain(answers).collect())
            }
            _ => self.store.count(events, now).await,
        }
    }

    async fn usage(&self, tenant: &str) -> Result<Option<(Period, Account)>, StoreError> {
        let usage = self.store.usage(&self.tenant(tenant)).await?;
        Ok(usage.map(|(period, account)| match self.has {
            AnotherPeriod => (Period { end: period.end.plus(1), ..period }, account),
            _ => (period, account),
        }))
    }

    async fn periods(&self, tenant: &str, most: u32) -> Result<Vec<(Period, Account)>, StoreError> {
        let most = if self.has == AllPeriods { 1000 } else { most };
        let mut periods = self.store.periods(&self.tenant(tenant), most).await?;
        if self.has == OldestPeriodFirst {
            periods.reverse();
        }
        Ok(periods)
    }

    async fn days(&self, tenant: Option<&str>, first: Day, last: Day) -> Result<Vec<(Day, Amounts)>, StoreError> {
        let tenant = tenant.map(|tenant| self.tenant(tenant));
        match (self.has, &tenant) {
            (LeavesOutTheLastDay, _) => self.store.days(tenant.as_deref(), first, Day(last.0 - 1)).await,
            (SiteOfOneTenant, None) => self.store.days(Some("acme"), first, last).await,
            (DaysOfTheMachine, _) => {
                let lines = self.store.lines(0, 1000).await?;
                let mut days: BTreeMap<Day, Amounts> = BTreeMap::new();
                for line in lines.iter().filter(|line| tenant.as_ref().is_none_or(|tenant| line.tenant == *tenant)) {
                    let sum = days.entry(Day::of(line.at.plus(3600))).or_default();
                    *sum = sum.plus(line.amounts);
                }
                Ok(days.into_iter().filter(|(day, _)| (first..=last).contains(day)).collect())
            }
            _ => self.store.days(tenant.as_deref(), first, last).await,
        }
    }

    async fn hours(&self, tenant: &str, from: Timestamp, most: u32, now: Timestamp) -> Result<ClosedHours, StoreError> {
        match self.has {
            HoursThatAreOpen => self.store.hours(tenant, from, most, now.plus(3600)).await,
            HoursCutByPages => {
                let mut page = self.store.hours(tenant, from, most, now).await?;
                page.hours.truncate(most as usize);
                Ok(page)
            }
            HoursOfLines => {
                let page = self.store.hours(tenant, from, most, now).await?;
                let lines = self.store.lines(0, 1000).await?;
                let of = |row: &ClosedHour| {
                    let within = |at: Timestamp| (0..3600).contains(&at.since(row.hour));
                    let ours = lines.iter().filter(|line| line.tenant == tenant && within(line.at));
                    let ours = ours.filter(|line| line.period_start == row.period.start);
                    ClosedHour { amounts: ours.fold(Amounts::ZERO, |sum, line| sum.plus(line.amounts)), ..*row }
                };
                Ok(ClosedHours { hours: page.hours.iter().map(of).collect(), ..page })
            }
            _ => self.store.hours(&self.tenant(tenant), from, most, now).await,
        }
    }

    async fn lines(&self, after: i64, most: u32) -> Result<Vec<StoredLine>, StoreError> {
        match self.has {
            SkipsALine if after > 0 => self.store.lines(after + 1, most).await,
            RepeatsALine if after > 1 && most > 1 && after % 5 == 2 => self.store.lines(after - 1, most).await,
            IgnoresThePage => self.store.lines(after, 1000).await,
            _ => self.store.lines(after, most).await,
        }
    }

    async fn waiting(&self, after: i64, most: u32) -> Result<Waiting, StoreError> {
        self.store.waiting(after, most).await
    }

    async fn id(&self) -> Result<String, StoreError> {
        self.store.id().await
    }

    async fn changed(&self, after: i64, most: u32) -> Result<Vec<Changed>, StoreError> {
        match self.has {
            ChangedOnly if after > 0 => self.store.changed(after + 1, most).await,
            LevelsLeftOut => {
                let changed = self.store.changed(after, most).await?;
                let flows = |amounts: Amounts| amounts.only(false);
                let less =
                    |one: Changed| Changed { account: Account { used: flows(one.account.used), ..one.account }, ..one };
                Ok(changed.into_iter().map(less).collect())
            }
            _ => self.store.changed(after, most).await,
        }
    }

    async fn ready(&self) -> Result<(), StoreError> {
        self.store.ready().await
    }

    async fn forget(&self, before: Timestamp, most: u32) -> Result<u32, StoreError> {
        match self.has {
            ForgetsNothing => Ok(0),
            ForgetsEarly => self.store.forget(before.plus(24 * 3600), most).await,
            _ => self.store.forget(before, most).await,
        }
    }

    async fn pending(&self) -> Result<Vec<Pending>, StoreError> {
        match self.has {
            ForgetsPending => Ok(Vec::new()),
            KeepsEndedPending => Ok(self.names.lock().expect("not poisoned").values().cloned().collect()),
            _ => self.store.pending().await,
        }
    }

    fn answers(&self) -> &dyn Answers {
        self.store.answers()
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        let waiting = std::mem::take(&mut *self.waiting.lock().expect("not poisoned"));
        let store = self.store.clone();
        if !waiting.is_empty() {
            tokio::spawn(async move {
                for (command, now) in waiting {
                    drop(store.apply(command, now).await);
                }
            });
        }
    }
}

/// A place whose stores have a fault. What a crash leaves is read without it.
struct FaultyPlace(Box<dyn Place>, Seeded);

#[async_trait]
impl Place for FaultyPlace {
    async fn open(&self) -> Result<Arc<dyn Store>, StoreError> {
        let store = self.0.open().await?;
        let (count, names, waiting) = Default::default();
        Ok(Arc::new(Faulty { store, has: self.1, count, names, waiting }))
    }

    async fn left_by_a_crash(&self) -> Box<dyn Place> {
        self.0.left_by_a_crash().await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_with_a_seeded_fault_breaks_the_contract_that_is_about_it() {
    for (has, contract) in CAUGHT {
        let places = move || -> Box<dyn Place> { Box::new(FaultyPlace(SqliteFolder::place(), has)) };
        assert_eq!(judge(&places, |name| name == contract).await, BTreeSet::from([contract]), "{has:?}");
    }
}
