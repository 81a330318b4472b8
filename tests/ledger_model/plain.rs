//! A second ledger, which only keeps what happened and adds it all up again for each question. It shares no sums, no
//! rules and no code with the first one.

use tenant_operator::ledger::account::{Period, State};
use tenant_operator::ledger::decision::{Action, Answer, Command, Refusal};
use tenant_operator::ledger::units::{Amounts, LARGEST, Limits, Unit};

use strum::IntoEnumIterator;

/// One number for each unit, in their order.
pub type Row = [i64; 7];

/// The last two units are levels.
const FIRST_LEVEL: usize = 5;

pub fn row(amounts: Amounts) -> Row {
    let mut row = Row::default();
    for (place, unit) in row.iter_mut().zip(Unit::iter()) {
        *place = amounts[unit];
    }
    row
}

fn amounts(row: Row) -> Amounts {
    Unit::iter().zip(row).fold(Amounts::ZERO, |sum, (unit, amount)| sum.with(unit, amount))
}

/// Something that happened to an operation.
#[derive(Clone, Debug)]
enum Event {
    /// It was set aside.
    Reserved(Row),
    /// So much was used by then.
    Noted(Row),
    /// So much more counts.
    Counted(Row),
    /// A level is so much lower; so much was asked.
    Gone(Row, Row),
    /// It ended.
    Ended(State),
}

#[derive(Clone, Debug)]
struct Entry {
    tenant: String,
    operation: String,
    period: Period,
    event: Event,
    /// Whether another system told of it.
    told: bool,
}

#[derive(Clone, Debug, Default)]
pub struct Plain(Vec<Entry>);

impl Plain {
    fn of<'a>(&'a self, operation: &'a str) -> impl Iterator<Item = &'a Entry> {
        self.0.iter().filter(move |entry| entry.operation == operation)
    }

    fn note(&mut self, command: &Command, period: Period, event: Event) {
        let (tenant, operation) = (command.tenant.clone(), command.operation.clone());
        let told = matches!(command.action, Action::Event { .. } | Action::Move { .. });
        self.0.push(Entry { tenant, operation, period, event, told });
    }

    /// The first period with the latest start in which something was set aside, counted or released. A void begins
    /// none, and what another system tells of only the first one.
    fn latest(&self, tenant: &str) -> Option<Period> {
        let began = self.0.iter().filter(|entry| {
            let begins = matches!(entry.event, Event::Reserved(_) | Event::Counted(_) | Event::Gone(..));
            entry.tenant == tenant && begins
        });
        began.fold(None, |best: Option<Period>, entry| match best {
            Some(best) if entry.told || entry.period.start <= best.start => Some(best),
            _ => Some(entry.period),
        })
    }

    fn state(&self, operation: &str) -> Option<State> {
        let mut state = None;
        for entry in self.of(operation) {
            state = match entry.event {
                Event::Reserved(_) => Some(State::Pending),
                Event::Ended(ended) => Some(ended),
                _ => state,
            };
        }
        state
    }

    fn reserved_by(&self, operation: &str) -> Option<Row> {
        self.of(operation).find_map(|entry| if let Event::Reserved(row) = entry.event { Some(row) } else { None })
    }

    /// What was counted of an operation.
    fn counted(&self, operation: &str) -> Row {
        let mut sum = Row::default();
        for entry in self.of(operation) {
            if let Event::Counted(row) = entry.event {
                (0..7).for_each(|unit| sum[unit] += row[unit]);
            }
        }
        sum
    }

    /// The largest checkpoint of each unit.
    fn noted(&self, operation: &str) -> Row {
        let mut most = Row::default();
        for entry in self.of(operation) {
            if let Event::Noted(row) = entry.event {
                (0..7).for_each(|unit| most[unit] = most[unit].max(row[unit]));
            }
        }
        most
    }

    /// What a tenant has used: of flows in the period, of levels in all.
    pub fn used(&self, tenant: &str, period: Period) -> Row {
        let mut sum = Row::default();
        for entry in self.0.iter().filter(|entry| entry.tenant == tenant) {
            for unit in 0..7 {
                if unit >= FIRST_LEVEL || entry.period.start == period.start {
                    match entry.event {
                        Event::Counted(row) => sum[unit] += row[unit],
                        Event::Gone(row, _) => sum[unit] -= row[unit],
                        _ => {}
                    }
                }
            }
        }
        sum
    }

    /// What is set aside and has not ended.
    pub fn reserved(&self, tenant: &str, period: Period) -> Row {
        let mut sum = Row::default();
        for entry in self.0.iter().filter(|entry| entry.tenant == tenant) {
            let Event::Reserved(row) = entry.event else { continue };
            if self.state(&entry.operation) != Some(State::Pending) {
                continue;
            }
            for unit in 0..7 {
                if unit >= FIRST_LEVEL || entry.period.start == period.start {
                    sum[unit] += row[unit];
                }
            }
        }
        sum
    }

    fn left(&self, tenant: &str, period: Period, limits: &Limits) -> Limits {
        let (used, reserved) = (self.used(tenant, period), self.reserved(tenant, period));
        let mut left = Limits::default();
        for (at, unit) in Unit::iter().enumerate() {
            if let Some(limit) = limits.of(unit) {
                let rest = limit - used[at] - reserved[at];
                left = left.with(unit, if rest < 0 { 0 } else { rest });
            }
        }
        left
    }

    /// Why so much more does not fit.
    fn obstacle(&self, tenant: &str, period: Period, more: Row, limits: &Limits) -> Option<Refusal> {
        let (used, reserved) = (self.used(tenant, period), self.reserved(tenant, period));
        for (at, unit) in Unit::iter().enumerate() {
            let asked = more[at];
            if asked == 0 {
                continue;
            }
            let sum = used[at] + reserved[at] + asked;
            if let Some(limit) = limits.of(unit)
                && sum > limit
            {
                let left = if used[at] + reserved[at] > limit { 0 } else { limit - used[at] - reserved[at] };
                return Some(Refusal::LimitReached { unit, limit, left, asked });
            }
            if sum > LARGEST {
                return Some(Refusal::TooMuch(unit));
            }
        }
        None
    }

    /// What the command is answered.
    pub fn ask(&mut self, command: &Command) -> Answer {
        let name = command.operation.as_str();
        let Some(first) = self.of(name).next().cloned() else { return self.begin(command) };
        if first.tenant != command.tenant {
            return Answer::Refused(Refusal::OtherParameters);
        }
        let state = self.state(name).expect("what is known has a state");
        match &command.action {
            Action::Reserve { amounts, limits, .. } => self.reserve_again(&first, state, row(*amounts), limits),
            Action::Checkpoint { amounts } if state == State::Pending => {
                let reserved = self.reserved_by(name).unwrap_or_default();
                self.note(command, first.period, Event::Noted(smaller(row(*amounts), reserved)));
                Answer::Checkpointed
            }
            Action::Settle { amounts, .. } => self.settle(command, &first, state, row(*amounts)),
            Action::Event { .. } => Answer::Duplicate,
            Action::Void { .. } if state == State::Pending => {
                self.note(command, first.period, Event::Ended(State::Voided));
                Answer::Voided
            }
            Action::Void { .. } if state == State::Voided => Answer::Voided,
            Action::Void { .. } if state == State::Expired && self.counted(name) == Row::default() => {
                self.note(command, first.period, Event::Ended(State::Voided));
                Answer::Voided
            }
            Action::Expire if state == State::Pending => {
                let noted = self.noted(name);
                self.note(command, first.period, Event::Counted(noted));
                self.note(command, first.period, Event::Ended(State::Expired));
                Answer::Expired
            }
            Action::Release { amounts, .. } => match first.event {
                Event::Gone(_, asked) if asked == row(*amounts) => Answer::Released,
                _ => Answer::Refused(Refusal::OtherParameters),
            },
            _ => Answer::Refused(Refusal::Ended(state)),
        }
    }

    fn reserve_again(&self, first: &Entry, state: State, asked: Row, limits: &Limits) -> Answer {
        // One that was never reserved stands for what it counted.
        let stands = self.reserved_by(&first.operation).unwrap_or_else(|| self.counted(&first.operation));
        match state {
            State::Voided => Answer::Refused(Refusal::Ended(State::Voided)),
            State::Released => Answer::Refused(Refusal::OtherParameters),
            _ if stands != asked => Answer::Refused(Refusal::OtherParameters),
            _ => Answer::Reserved {
                period: first.period,
                left: self.left(&first.tenant, first.period, limits),
                pending: state == State::Pending,
            },
        }
    }

    fn settle(&mut self, command: &Command, first: &Entry, state: State, used: Row) -> Answer {
        let name = &command.operation;
        let reserved = self.reserved_by(name);
        let before = self.counted(name);
        match state {
            State::Pending | State::Expired => {
                let within = smaller(used, reserved.unwrap_or_default());
                let mut more = Row::default();
                (0..7).filter(|unit| within[*unit] > before[*unit]).for_each(|u| more[u] = within[u] - before[u]);
                let beyond = self.obstacle(&command.tenant, first.period, more, &Limits::default());
                if let (Some(refusal), State::Expired) = (beyond, state) {
                    return Answer::Refused(refusal);
                }
                self.note(command, first.period, Event::Counted(more));
                self.note(command, first.period, Event::Ended(State::Settled));
            }
            State::Settled => {}
            _ => return Answer::Refused(Refusal::Ended(state)),
        }
        let posted = self.counted(name);
        let mut excess = Row::default();
        (0..7).filter(|unit| used[*unit] > posted[*unit]).for_each(|u| excess[u] = used[u] - posted[u]);
        Answer::Settled { posted: amounts(posted), excess: amounts(excess) }
    }

    /// A command for what is not known.
    fn begin(&mut self, command: &Command) -> Answer {
        let tenant = command.tenant.as_str();
        let latest = self.latest(tenant);
        let current = |asked: Period| latest.filter(|latest| latest.start >= asked.start).unwrap_or(asked);
        match &command.action {
            Action::Reserve { period, amounts, limits, .. } => {
                let period = current(*period);
                if let Some(refusal) = self.obstacle(tenant, period, row(*amounts), limits) {
                    return Answer::Refused(refusal);
                }
                self.note(command, period, Event::Reserved(row(*amounts)));
                Answer::Reserved { period, left: self.left(tenant, period, limits), pending: true }
            }
            Action::Settle { period, amounts } | Action::Move { period, amounts } => {
                if let Some(refusal) = self.obstacle(tenant, *period, row(*amounts), &Limits::default()) {
                    return Answer::Refused(refusal);
                }
                self.note(command, *period, Event::Counted(row(*amounts)));
                self.note(command, *period, Event::Ended(State::Settled));
                Answer::Settled { posted: *amounts, excess: Amounts::ZERO }
            }
            Action::Event { period, amounts } => {
                if let Some(refusal) = self.obstacle(tenant, *period, row(*amounts), &Limits::default()) {
                    return Answer::Refused(refusal);
                }
                self.note(command, *period, Event::Counted(row(*amounts)));
                self.note(command, *period, Event::Ended(State::Settled));
                Answer::Accepted
            }
            Action::Void { period } => {
                self.note(command, *period, Event::Ended(State::Voided));
                Answer::Voided
            }
            Action::Release { period, amounts } => {
                let period = current(*period);
                let mut gone = smaller(row(*amounts), self.used(tenant, period));
                gone[..FIRST_LEVEL].fill(0);
                self.note(command, period, Event::Gone(gone, row(*amounts)));
                self.note(command, period, Event::Ended(State::Released));
                Answer::Released
            }
            // No command of these tests; `recounting.rs` has it.
            Action::Recount { .. } => Answer::Settled { posted: Amounts::ZERO, excess: Amounts::ZERO },
            Action::Checkpoint { .. } | Action::Expire => Answer::Refused(Refusal::Unknown),
        }
    }
}

fn smaller(one: Row, other: Row) -> Row {
    let mut result = one;
    (0..7).filter(|unit| other[*unit] < one[*unit]).for_each(|unit| result[unit] = other[unit]);
    result
}
