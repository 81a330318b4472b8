//! A ledger in memory: it reads facts, asks `decide`, and writes the changes, as a store does.

use std::collections::BTreeMap;

use tenant_operator::api::Timestamp;
use tenant_operator::ledger::account::{Account, Line, LineKind, Operation, Period, State};
use tenant_operator::ledger::decision::{Action, Answer, Changes, Command, Facts, Refusal, decide, period_of};
use tenant_operator::ledger::units::{Amounts, Limits, Unit};

pub const TENANT: &str = "t";
/// The unit of most tests.
pub const UNIT: Unit = Unit::CompletionTokens;
const MONTH: i64 = 30 * 24 * 3600;

/// The tenant's first period, its second, and so on.
pub fn period(number: u8) -> Period {
    let start = 1_000_000 + i64::from(number) * MONTH;
    Period { start: Timestamp::from_second(start), end: Timestamp::from_second(start + MONTH) }
}

pub fn some(amount: i64) -> Amounts {
    Amounts::of(UNIT, amount)
}

pub fn limit(limit: i64) -> Limits {
    Limits::default().with(UNIT, limit)
}

/// A reservation in the first period.
pub fn reserve(amount: i64, most: i64) -> Action {
    reserve_in(1, amount, most)
}

pub fn reserve_in(number: u8, amount: i64, most: i64) -> Action {
    Action::Reserve { period: period(number), amounts: some(amount), limits: limit(most), expires_after: 60 }
}

pub fn checkpoint(amount: i64) -> Action {
    Action::Checkpoint { amounts: some(amount) }
}

/// A settlement by a client whose clock is in the first period.
pub fn settle(amount: i64) -> Action {
    settle_in(1, amount)
}

pub fn settle_in(number: u8, amount: i64) -> Action {
    Action::Settle { period: period(number), amounts: some(amount) }
}

pub fn void() -> Action {
    Action::Void { period: period(1) }
}

/// The answer to a reservation in the first period.
pub fn reserved(left: i64) -> Answer {
    Answer::Reserved { period: period(1), left: limit(left), pending: true }
}

/// The answer to one that comes again after its end.
pub fn reserved_before(left: i64) -> Answer {
    Answer::Reserved { period: period(1), left: limit(left), pending: false }
}

pub fn settled(posted: i64, excess: i64) -> Answer {
    Answer::Settled { posted: some(posted), excess: some(excess) }
}

pub fn ended(state: State) -> Answer {
    Answer::Refused(Refusal::Ended(state))
}

pub const OTHER: Answer = Answer::Refused(Refusal::OtherParameters);

/// What one tenant has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tenant {
    pub latest: Option<Period>,
    /// Flows, by the start of their period.
    pub flows: BTreeMap<i64, Account>,
    pub levels: Account,
}

impl Tenant {
    /// Levels, and the flows of a period.
    pub fn account(&self, period: Period) -> Account {
        let flows = self.flows.get(&period.start.as_second()).copied().unwrap_or_default();
        Account { used: flows.used.plus(self.levels.used), reserved: flows.reserved.plus(self.levels.reserved) }
    }

    fn put(&mut self, period: Period, account: Account) {
        let only = |levels| Account { used: account.used.only(levels), reserved: account.reserved.only(levels) };
        self.flows.insert(period.start.as_second(), only(false));
        self.levels = only(true);
    }
}

/// Everything that a store keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Books {
    pub operations: BTreeMap<String, Operation>,
    pub tenants: BTreeMap<String, Tenant>,
    /// Lines, by their operation.
    pub lines: BTreeMap<String, Vec<(Period, Line)>>,
}

impl Books {
    /// The facts that a command rests on.
    pub fn facts(&self, command: &Command) -> Facts {
        let operation = self.operations.get(&command.operation).cloned();
        let tenant = self.tenants.get(&command.tenant).cloned().unwrap_or_default();
        let account = match period_of(command, operation.as_ref(), tenant.latest) {
            Some(period) => tenant.account(period),
            None => Account::default(),
        };
        // Far enough that no period is ahead; the tests of that rule say when it is.
        Facts { now: Timestamp::from_second(i64::MAX / 2), operation, latest: tenant.latest, account }
    }

    /// Writes what a command changes.
    pub fn write(&mut self, command: &Command, facts: &Facts, changes: Changes) {
        let Some(period) = period_of(command, facts.operation.as_ref(), facts.latest) else {
            assert_eq!(changes, Changes::default(), "a command without a period changes nothing");
            return;
        };
        if let Some(operation) = changes.operation {
            self.operations.insert(command.operation.clone(), operation);
        }
        if let Some(latest) = changes.latest {
            self.tenants.entry(command.tenant.clone()).or_default().latest = Some(latest);
        }
        if let Some(account) = changes.account {
            self.tenants.entry(command.tenant.clone()).or_default().put(period, account);
        }
        if let Some(line) = changes.line {
            self.lines.entry(command.operation.clone()).or_default().push((period, line));
        }
    }

    /// Applies a command.
    pub fn apply(&mut self, command: &Command) -> Answer {
        let facts = self.facts(command);
        let (answer, changes) = decide(command, &facts);
        if matches!(answer, Answer::Refused(_)) {
            assert_eq!(changes, Changes::default(), "a refusal changes nothing: {command:?}");
        }
        self.write(command, &facts, changes);
        answer
    }

    /// Applies a command of the one tenant of most tests.
    pub fn ask(&mut self, operation: &str, action: Action) -> Answer {
        self.apply(&Command { operation: operation.into(), tenant: TENANT.into(), action, at: None })
    }

    /// What the tenant of most tests has used and reserved of the one unit, in a period.
    pub fn taken(&self, number: u8) -> (i64, i64) {
        let account = self.tenants.get(TENANT).map(|tenant| tenant.account(period(number))).unwrap_or_default();
        (account.used[UNIT], account.reserved[UNIT])
    }

    pub fn state(&self, operation: &str) -> Option<State> {
        self.operations.get(operation).map(|operation| operation.state)
    }

    /// The lines of an operation: why, and how much of the one unit.
    pub fn lines_of(&self, operation: &str) -> Vec<(LineKind, i64)> {
        let lines = self.lines.get(operation).into_iter().flatten();
        lines.map(|(_, line)| (line.kind, line.amounts[UNIT])).collect()
    }
}
