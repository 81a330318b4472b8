//! The small world: a ledger of one tenant, its clients with one request each, and what is under way between them.

use std::collections::{BTreeMap, BTreeSet};

use tenant_operator::ledger::account::{Account, LineKind, State as Ended};
use tenant_operator::ledger::decision::{Action as Asked, Answer, Command, Refusal, decide};
use tenant_operator::ledger::units::Limits;

use super::mistakes::Mistake;
use crate::books::{Books, TENANT, UNIT, checkpoint, limit, period, reserve_in, settle_in};

/// How often each thing may happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Budget {
    /// A client dies.
    pub crashes: u8,
    /// A request is done, and its answer lost.
    pub lost: u8,
    /// A request is done, and comes once more.
    pub repeats: u8,
    /// A client that waits for its reservation gives it up.
    pub given_up: u8,
    /// A client that waits for its reservation serves without one.
    pub unreserved: u8,
    /// A request fails while it is served.
    pub failures: u8,
    /// The limit changes.
    pub limits: u8,
    /// A period ends.
    pub turns: u8,
    /// A client's clock goes back to the period before.
    pub clocks: u8,
}

/// What a client does with its request.
pub struct Script {
    pub reserves: i64,
    /// It sends a checkpoint of 1, of 2, and so on up to this.
    pub notes: i64,
    pub uses: i64,
}

impl Script {
    /// What is counted of what was served.
    fn counted(&self) -> i64 {
        self.uses.min(self.reserves)
    }
}

/// The first tells how far it is, the second uses more than it reserves, the third does neither.
pub const SCRIPTS: [Script; 3] = [
    Script { reserves: 4, notes: 2, uses: 3 },
    Script { reserves: 2, notes: 0, uses: 3 },
    Script { reserves: 1, notes: 0, uses: 1 },
];

/// The limit leaves room for the first client and the third, or for the others; a raised one for all, a lowered one for
/// one.
pub const LIMITS: [i64; 3] = [5, 7, 2];

/// How far a client is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Phase {
    #[default]
    Idle,
    /// It waits for its reservation.
    Asking,
    Serving,
    /// It waits for the settlement before it delivers. One without a reservation has delivered.
    Settling,
    Voiding,
    Served,
    /// The limit was reached.
    Refused,
    Voided,
    /// It wanted to void what had expired.
    TooLate,
    Crashed,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Client {
    pub phase: Phase,
    /// Its clock is in the period before.
    pub behind: bool,
    /// The last checkpoint that it sent.
    pub sent: i64,
    /// The last checkpoint that the ledger acknowledged, to the client or in vain.
    pub noted: i64,
    /// It sent a settlement.
    pub settles: bool,
    /// The period that the ledger has said to reserve in.
    granted: Option<i64>,
    /// What the ledger has answered to the settlement.
    settled: Option<(i64, i64)>,
    /// The ledger has said that it is voided.
    pub voided: bool,
}

/// What is under way to the ledger, with the number of the client's period.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Request {
    Reserve { number: u8, limit: i64 },
    Checkpoint(i64),
    Settle { number: u8 },
    Void { number: u8 },
}

/// Everything there is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub books: Books,
    pub clients: Vec<Client>,
    pub network: BTreeSet<(usize, Request)>,
    /// The number of the period.
    pub number: u8,
    pub limit: i64,
    pub budget: Budget,
    /// The highest limit that a reservation was granted under, by the start of its period.
    judged: BTreeMap<i64, i64>,
    /// The account as it was before the last change; kept for the mistake that reads it.
    pub seen: Option<Account>,
    /// A reservation was granted beyond its limit.
    pub overdrawn: bool,
    /// A reservation was made in a period that was over.
    pub reopened: bool,
    /// The ledger gave two answers to one question, or one that makes no sense.
    pub contradicted: bool,
}

impl State {
    pub fn new(clients: usize, budget: Budget) -> Self {
        Self {
            books: Books::default(),
            clients: vec![Client::default(); clients],
            network: BTreeSet::new(),
            number: 1,
            limit: LIMITS[0],
            budget,
            judged: BTreeMap::new(),
            seen: None,
            overdrawn: false,
            reopened: false,
            contradicted: false,
        }
    }

    /// The number of the period by a client's clock.
    fn number(&self, client: usize) -> u8 {
        self.number - u8::from(self.clients[client].behind && self.number > 1)
    }

    pub fn send(&mut self, client: usize, phase: Phase) {
        self.clients[client].phase = phase;
        let number = self.number(client);
        let request = match phase {
            Phase::Asking => Request::Reserve { number, limit: self.limit },
            Phase::Settling => Request::Settle { number },
            Phase::Voiding => Request::Void { number },
            _ => return,
        };
        self.clients[client].settles |= phase == Phase::Settling;
        self.network.insert((client, request));
    }

    /// Whether a client waits for an answer that does not come.
    pub fn waits_in_vain(&self, client: usize) -> bool {
        let phase = self.clients[client].phase;
        matches!(phase, Phase::Asking | Phase::Settling | Phase::Voiding)
            && !self.network.iter().any(|(of, request)| *of == client && !matches!(request, Request::Checkpoint(_)))
    }

    /// The ledger does what a client asks.
    pub fn deliver(&mut self, mistake: Option<Mistake>, client: usize, request: Request) -> Answer {
        let script = &SCRIPTS[client];
        let asked = match request {
            Request::Reserve { number, limit } => reserve_in(number, script.reserves, limit),
            Request::Checkpoint(amount) => checkpoint(amount),
            Request::Settle { number } => settle_in(number, script.uses),
            Request::Void { number } => Asked::Void { period: period(number) },
        };
        let answer = self.ask(mistake, client, asked);
        self.compare(client, request, &answer);
        answer
    }

    pub fn expire(&mut self, mistake: Option<Mistake>, client: usize) {
        self.ask(mistake, client, Asked::Expire);
    }

    fn ask(&mut self, mistake: Option<Mistake>, client: usize, action: Asked) -> Answer {
        let command = Command { operation: client.to_string(), tenant: TENANT.into(), action, at: None };
        let latest = self.latest();
        let facts = mistake.map_or_else(|| self.books.facts(&command), |m| m.facts(&self.books, &command));
        let (answer, changes) = match mistake {
            Some(mistake) => mistake.decide(&command, &facts, self.seen),
            None => decide(&command, &facts),
        };
        let grows = changes.account.is_some_and(|account| account.reserved[UNIT] > facts.account.reserved[UNIT]);
        if mistake == Some(Mistake::LimitReadBefore) && changes.account.is_some() {
            self.seen = Some(facts.account);
        }
        self.books.write(&command, &facts, changes);
        if let (Asked::Reserve { limits, .. }, Answer::Reserved { period, .. }, true) = (&command.action, answer, grows)
        {
            let start = period.start.as_second();
            let most = limits.of(UNIT).unwrap_or_default();
            let account = self.books.tenants[TENANT].account(period);
            self.overdrawn |= account.used.plus(account.reserved)[UNIT] > most;
            self.reopened |= latest.is_some_and(|latest| start < latest);
            let judged = self.judged.entry(start).or_insert(most);
            *judged = most.max(*judged);
        }
        self.reopened |= self.latest() < latest;
        answer
    }

    fn latest(&self) -> Option<i64> {
        Some(self.books.tenants.get(TENANT)?.latest?.start.as_second())
    }

    /// Compares an answer with what the ledger has said before.
    fn compare(&mut self, client: usize, request: Request, answer: &Answer) {
        let known = &mut self.clients[client];
        let consistent = match (request, answer) {
            (Request::Reserve { .. }, Answer::Reserved { period, .. }) => {
                let start = period.start.as_second();
                !known.voided && *known.granted.get_or_insert(start) == start
            }
            (Request::Reserve { .. }, Answer::Refused(Refusal::Ended(Ended::Voided))) => known.voided,
            (Request::Reserve { .. }, Answer::Refused(Refusal::OtherParameters)) => known.settled.is_some(),
            (Request::Reserve { .. }, Answer::Refused(_)) => known.granted.is_none(),
            (Request::Checkpoint(amount), Answer::Checkpointed) => {
                known.noted = known.noted.max(amount);
                true
            }
            (Request::Checkpoint(_), Answer::Refused(_)) => true,
            (Request::Settle { .. }, Answer::Settled { posted, excess }) => {
                let said = (posted[UNIT], excess[UNIT]);
                *known.settled.get_or_insert(said) == said
            }
            (Request::Void { .. }, Answer::Voided) => {
                known.voided = true;
                true
            }
            (Request::Void { .. }, Answer::Refused(Refusal::Ended(Ended::Expired))) => !known.voided,
            _ => false,
        };
        self.contradicted |= !consistent;
    }

    /// A client hears an answer.
    pub fn hear(&mut self, client: usize, request: Request, answer: &Answer) {
        let phase = &mut self.clients[client].phase;
        *phase = match (*phase, request, answer) {
            (Phase::Asking, Request::Reserve { .. }, Answer::Reserved { .. }) => Phase::Serving,
            (Phase::Asking, Request::Reserve { .. }, Answer::Refused(_)) => Phase::Refused,
            (Phase::Settling, Request::Settle { .. }, Answer::Settled { .. }) => Phase::Served,
            (Phase::Voiding, Request::Void { .. }, Answer::Voided) => Phase::Voided,
            (Phase::Voiding, Request::Void { .. }, Answer::Refused(_)) => Phase::TooLate,
            (phase, ..) => phase,
        };
    }

    /// What was counted of a client's request.
    pub fn counted(&self, client: usize) -> i64 {
        self.books.lines_of(&client.to_string()).iter().map(|(_, amount)| amount).sum()
    }

    /// Use and reservations are within the limits that were judged, but for what was counted without one.
    pub fn is_within_limits(&self) -> bool {
        let Some(tenant) = self.books.tenants.get(TENANT) else { return true };
        !self.overdrawn
            && tenant.flows.iter().all(|(start, account)| {
                let unjudged = self.lines_in(*start, |kind| matches!(kind, LineKind::Unreserved | LineKind::Late));
                let judged = self.judged.get(start).copied().unwrap_or_default();
                account.used.plus(account.reserved)[UNIT] <= judged + unjudged
            })
    }

    pub fn used_is_the_sum_of_lines(&self) -> bool {
        let Some(tenant) = self.books.tenants.get(TENANT) else { return self.books.lines.is_empty() };
        tenant.flows.iter().all(|(start, account)| account.used[UNIT] == self.lines_in(*start, |_| true))
    }

    fn lines_in(&self, start: i64, of: impl Fn(LineKind) -> bool) -> i64 {
        let lines = self.books.lines.values().flatten();
        let lines = lines.filter(|(period, line)| period.start.as_second() == start && of(line.kind));
        lines.map(|(_, line)| line.amounts[UNIT]).sum()
    }

    pub fn reserved_is_the_sum_of_what_is_pending(&self) -> bool {
        let Some(tenant) = self.books.tenants.get(TENANT) else { return true };
        tenant.flows.iter().all(|(start, account)| {
            let pending = self.books.operations.values();
            let pending = pending.filter(|o| o.state == Ended::Pending && o.period.start.as_second() == *start);
            account.reserved[UNIT] == pending.map(|operation| operation.reserved[UNIT]).sum::<i64>()
        })
    }

    /// What was served is counted once, and of nothing more than that.
    pub fn served_is_counted_once(&self) -> bool {
        self.clients.iter().zip(&SCRIPTS).enumerate().all(|(client, (known, script))| {
            let counted = self.counted(client);
            if known.phase == Phase::Served { counted == script.counted() } else { counted <= script.counted() }
        })
    }

    pub fn has_settled_late(&self) -> bool {
        self.books.lines.values().flatten().any(|(_, line)| line.kind == LineKind::Late)
    }

    /// What was refused counts nothing. What was voided neither counts nor is set aside.
    pub fn refused_and_voided_count_nothing(&self) -> bool {
        self.clients.iter().enumerate().all(|(client, known)| {
            let pending = self.books.state(&client.to_string()) == Some(Ended::Pending);
            match known.phase {
                _ if known.voided => self.counted(client) == 0 && !pending,
                Phase::Refused => self.counted(client) == 0,
                _ => true,
            }
        })
    }

    /// All clients stop here; what is under way arrives, and what is pending expires.
    pub fn stopped(&self, mistake: Option<Mistake>) -> Self {
        let mut end = self.clone();
        for (client, request) in std::mem::take(&mut end.network) {
            end.deliver(mistake, client, request);
        }
        for client in 0..end.clients.len() {
            end.expire(mistake, client);
        }
        end
    }

    /// Nothing is reserved any more, and each request counts what it should.
    pub fn has_ended_well(&self) -> bool {
        let tenant = self.books.tenants.get(TENANT);
        let free = tenant.is_none_or(|tenant| tenant.flows.values().all(|account| account.reserved.is_zero()));
        free && self.clients.iter().zip(&SCRIPTS).enumerate().all(|(client, (known, script))| {
            self.counted(client)
                == match known {
                    Client { settles: true, .. } => script.counted(),
                    Client { voided: true, .. } | Client { phase: Phase::Refused, .. } => 0,
                    Client { noted, .. } => *noted,
                }
        })
    }
}

/// Limits that refuse nothing.
pub fn no_limits() -> Limits {
    limit(i64::MAX)
}
