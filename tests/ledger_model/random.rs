//! Long random runs: the ledger and one that only adds up get the same commands, and must agree on everything.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use strum::IntoEnumIterator;
use tenant_operator::ledger::account::{LineKind, State};
use tenant_operator::ledger::decision::{Action, Answer, Command, Refusal};
use tenant_operator::ledger::units::{Amounts, LARGEST, Limits, Unit};

use crate::books::{Books, period};
use crate::plain::{Plain, Row, row};

const RUNS: u64 = 1000;
const STEPS: usize = 100;
const TENANTS: [&str; 3] = ["a", "b", "c"];

/// Small amounts of some units, and now and then nearly all that can be counted.
fn some_amounts(rng: &mut StdRng, most: i64) -> Amounts {
    let share = rng.random_range(0.1..1.0);
    let mut amounts = Amounts::ZERO;
    for unit in Unit::iter() {
        if rng.random_bool(share) {
            amounts[unit] =
                if rng.random_bool(0.01) { LARGEST - rng.random_range(0..3) } else { rng.random_range(0..=most) };
        }
    }
    amounts
}

fn some_limits(rng: &mut StdRng) -> Limits {
    let roomy = rng.random_range(5..60);
    let mut limits = Limits::default();
    for unit in Unit::iter() {
        if rng.random_bool(0.6) {
            limits = limits.with(unit, rng.random_range(0..=roomy));
        }
    }
    limits
}

/// A command as a client could send it, often one that was sent before, and some that make no sense.
fn some_command(rng: &mut StdRng, books: &Books, sent: &[Command]) -> Command {
    if !sent.is_empty() && rng.random_bool(0.15) {
        return sent[rng.random_range(0..sent.len())].clone();
    }
    let number = rng.random_range(0..40_usize);
    // The name mostly tells whose it is.
    let tenant = TENANTS[if rng.random_bool(0.02) { rng.random_range(0..3) } else { number % 3 }];
    let operation = number.to_string();
    let amounts = some_amounts(rng, 9);
    let period = period(rng.random_range(1..4));
    let likely = match books.state(&operation) {
        _ if rng.random_bool(0.1) => 0..100,
        None => {
            if rng.random_bool(0.05) {
                83..85
            } else {
                0..55
            }
        }
        Some(State::Pending) => 55..95,
        // A late settlement.
        Some(State::Expired) => 65..80,
        Some(_) => 0..100,
    };
    let action = match rng.random_range(likely) {
        0..42 => Action::Reserve { period, amounts, limits: some_limits(rng), expires_after: rng.random_range(1..99) },
        42..52 => Action::Release { period, amounts: amounts.only(rng.random_bool(0.9)) },
        52..54 | 65..80 => Action::Settle { period, amounts },
        54 | 80..83 => Action::Void { period },
        83..85 => Action::Event { period, amounts },
        55..65 => Action::Checkpoint { amounts },
        _ => Action::Expire,
    };
    Command { operation, tenant: tenant.into(), action, at: None }
}

/// The lines of a tenant's period and levels, added up.
fn lines_of(books: &Books, tenant: &str, number: u8) -> Row {
    let mut sum = Row::default();
    for (operation, lines) in &books.lines {
        if books.operations[operation].tenant != tenant {
            continue;
        }
        for (at, line) in lines {
            for ((place, amount), unit) in sum.iter_mut().zip(row(line.amounts)).zip(Unit::iter()) {
                let counts = unit.is_level() || at.start == period(number).start;
                *place += if counts { amount } else { 0 };
            }
        }
    }
    sum
}

/// Both ledgers have the same accounts, and the lines add up to them.
fn agree(books: &Books, plain: &Plain) -> bool {
    TENANTS.into_iter().all(|tenant| {
        (1..4).all(|number| {
            let account = books.tenants.get(tenant).map(|known| known.account(period(number))).unwrap_or_default();
            let used = row(account.used);
            used == plain.used(tenant, period(number))
                && used == lines_of(books, tenant, number)
                && row(account.reserved) == plain.reserved(tenant, period(number))
                && used.into_iter().chain(row(account.reserved)).all(|amount| (0..=LARGEST).contains(&amount))
        })
    })
}

/// How often each answer was given, and each line written: a run that meets few of them proves little.
#[derive(Debug, Default)]
struct Met(std::collections::BTreeMap<String, u32>);

impl Met {
    fn count(&mut self, answer: &Answer) {
        let name = match answer {
            Answer::Refused(Refusal::TooMuch(_)) => "too much".into(),
            Answer::Refused(Refusal::LimitReached { .. }) => "limit reached".into(),
            Answer::Refused(refusal) => format!("{refusal:?}"),
            Answer::Reserved { .. } => "reserved".into(),
            Answer::Settled { excess, .. } => format!("settled, beyond: {}", !excess.is_zero()),
            other => format!("{other:?}"),
        };
        *self.0.entry(name).or_default() += 1;
    }
}

fn run(seed: u64, met: &mut Met) {
    let mut rng = StdRng::seed_from_u64(seed);
    let (mut books, mut plain) = (Books::default(), Plain::default());
    let mut sent: Vec<Command> = Vec::new();
    for step in 0..STEPS {
        let command = some_command(&mut rng, &books, &sent);
        let (answer, wanted) = (books.apply(&command), plain.ask(&command));
        assert_eq!(answer, wanted, "run {seed}, step {step}: {command:?} after {sent:#?}");
        sent.push(command);
        assert!(agree(&books, &plain), "run {seed}, step {step}: {books:#?} {plain:#?} after {sent:#?}");
        met.count(&answer);
    }
    for lines in books.lines.values() {
        for (_, line) in lines {
            *met.0.entry(format!("line {:?}", line.kind)).or_default() += 1;
            assert_eq!(line.kind == LineKind::Released, row(line.amounts).iter().any(|amount| *amount < 0));
        }
    }
}

#[test]
fn the_ledger_agrees_with_one_that_only_adds_up() {
    let mut met = Met::default();
    for seed in 0..RUNS {
        run(seed, &mut met);
    }
    println!("{met:#?}");
    assert!(met.0.len() >= 19 && met.0.values().all(|times| *times > 100), "too little was met: {met:#?}");
}
