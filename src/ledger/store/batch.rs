//! Many events at once: each account is read once and written once, whatever the number of its events.

use std::collections::{BTreeMap, HashMap};

use super::{AccountRow, LEVELS};
use crate::api::Timestamp;
use crate::ledger::account::{Account, Line, Operation, Period};
use crate::ledger::decision::{Answer, Command, Facts, decide, period_of};
use crate::ledger::units::Amounts;

/// What is known of a tenant, and what becomes of it.
#[derive(Debug, Default)]
pub struct Tenant {
    latest: Option<Period>,
    /// Its rows, by the start of their period.
    accounts: BTreeMap<i64, Account>,
    /// The rows that have changed, with the end of their period.
    changed: BTreeMap<i64, i64>,
    begins: bool,
    /// The sum of its lines.
    pub counted: Amounts,
}

impl Tenant {
    /// With the latest period that the store knows.
    pub fn known(latest: Option<Period>) -> Self {
        Self { latest, ..Self::default() }
    }

    /// Whether a row was read.
    pub fn has(&self, start: i64) -> bool {
        self.accounts.contains_key(&start)
    }

    /// A row as the store has it.
    pub fn read(&mut self, start: i64, account: Account) {
        self.accounts.insert(start, account);
    }

    /// The latest period, if it is another one from now on.
    pub fn later(&self) -> Option<Period> {
        self.latest.filter(|_| self.begins)
    }

    /// The rows that are to be written.
    pub fn rows(&self) -> impl Iterator<Item = AccountRow> {
        self.changed.iter().map(|(start, end)| (*start, *end, self.account(*start)))
    }

    fn account(&self, start: i64) -> Account {
        self.accounts.get(&start).copied().unwrap_or_default()
    }
}

/// What events rest on, and what they change.
#[derive(Debug, Default)]
pub struct Batch {
    /// The tenants, by their ids: to be read before.
    pub tenants: HashMap<String, Tenant>,
    /// The operations that were known before, by their names.
    pub known: HashMap<String, Operation>,
    /// The operations that are to be written.
    pub operations: Vec<(String, Operation)>,
    /// The lines that are to be written, with their operation and tenant, in order.
    pub lines: Vec<(String, String, Period, Line)>,
}

impl Batch {
    /// The starts of the rows that an event needs.
    pub fn rows_of(command: &Command) -> Option<[i64; 2]> {
        Some([period_of(command, None, None)?.start.as_second(), LEVELS])
    }

    /// What the events come to, one after the other.
    pub fn decide(&mut self, commands: &[Command], now: Timestamp) -> Vec<Answer> {
        commands.iter().map(|command| self.decide_one(command, now)).collect()
    }

    fn decide_one(&mut self, command: &Command, now: Timestamp) -> Answer {
        let tenant = self.tenants.entry(command.tenant.clone()).or_default();
        let operation = self.known.get(&command.operation).cloned();
        let Some(period) = period_of(command, operation.as_ref(), tenant.latest) else {
            return decide(command, &Facts { now, operation, latest: tenant.latest, account: Account::default() }).0;
        };
        let start = period.start.as_second();
        let account = tenant.account(start).plus(tenant.account(LEVELS));
        let (answer, changes) = decide(command, &Facts { now, operation, latest: tenant.latest, account });
        for (start, end, row) in changes.rows(&account, period) {
            tenant.accounts.insert(start, row);
            tenant.changed.entry(start).or_insert(end);
        }
        if let Some(latest) = changes.latest {
            (tenant.latest, tenant.begins) = (Some(latest), true);
        }
        if let Some(operation) = changes.operation {
            self.known.insert(command.operation.clone(), operation.clone());
            self.operations.push((command.operation.clone(), operation));
        }
        if let Some(line) = changes.line {
            tenant.counted = tenant.counted.plus(line.amounts);
            self.lines.push((command.operation.clone(), command.tenant.clone(), period, line));
        }
        answer
    }

    /// The sums of the lines by tenant and start of the period.
    pub fn by_period(&self) -> BTreeMap<(&str, Timestamp), Amounts> {
        let mut sums: BTreeMap<_, Amounts> = BTreeMap::new();
        for (_, tenant, period, line) in &self.lines {
            let sum = sums.entry((tenant.as_str(), period.start)).or_default();
            *sum = sum.plus(line.amounts);
        }
        sums
    }

    /// The sum of all lines.
    pub fn counted(&self) -> Amounts {
        self.tenants.values().fold(Amounts::ZERO, |sum, tenant| sum.plus(tenant.counted))
    }
}
