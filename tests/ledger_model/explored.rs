//! The ledger with its clients as stateright explores it: requests that come twice or late, lost answers, clients that
//! die, and limits, periods and clocks that change meanwhile.

mod mistakes;
mod world;

use stateright::{Checker, HasDiscoveries, Model, Property};

use mistakes::Mistake;
use world::{Budget, LIMITS, Phase, Request, SCRIPTS, State};

const LIMIT: &str = "use and reservations stay within the limit";
const USED: &str = "what is used is the sum of the lines";
const RESERVED: &str = "what is reserved is the sum of what is pending, and never negative";
const ONCE: &str = "what was served is counted once";
const NOTHING: &str = "what was refused or voided is not counted";
const CLOSED: &str = "a closed period does not open again";
const SAME: &str = "the same request gets the same answer";
/// A world in which this cannot happen proves nothing.
const LATE: &str = "a settlement comes after the expiry";
const END: &str = "in the end nothing is reserved, and each request counts what it should";

/// A world of so many clients.
struct Small {
    clients: usize,
    budget: Budget,
    mistake: Option<Mistake>,
}

/// What happens next. The number is the client's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Action {
    Start(usize),
    /// A request is done, and answered.
    Deliver(usize, Request),
    LoseAnswer(usize, Request),
    /// A request is done and answered, and comes once more.
    Repeat(usize, Request),
    /// A client whose answer was lost asks again.
    AskAgain(usize),
    Note(usize),
    Finish(usize),
    Fail(usize),
    GiveUp(usize),
    ServeUnreserved(usize),
    Crash(usize),
    /// The ledger ends what is pending for too long.
    Expire(usize),
    Limit(i64),
    Turn,
    ClockBack(usize),
}

impl Model for Small {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::new(self.clients, self.budget)]
    }

    fn actions(&self, s: &State, actions: &mut Vec<Action>) {
        let b = s.budget;
        let mut may = |allowed: bool, action: Action| actions.extend(allowed.then_some(action));
        for (client, request) in s.network.iter().copied() {
            may(true, Action::Deliver(client, request));
            may(b.lost > 0, Action::LoseAnswer(client, request));
            may(b.repeats > 0, Action::Repeat(client, request));
        }
        for (client, known) in s.clients.iter().enumerate() {
            let (asking, serving) = (known.phase == Phase::Asking, known.phase == Phase::Serving);
            let script = &SCRIPTS[client];
            may(known.phase == Phase::Idle, Action::Start(client));
            may(s.waits_in_vain(client), Action::AskAgain(client));
            may(serving && known.sent < script.notes, Action::Note(client));
            may(serving, Action::Finish(client));
            may(serving && b.failures > 0, Action::Fail(client));
            may(asking && b.given_up > 0, Action::GiveUp(client));
            may(asking && b.unreserved > 0 && script.uses <= script.reserves, Action::ServeUnreserved(client));
            may(
                b.crashes > 0 && (asking || serving || matches!(known.phase, Phase::Settling | Phase::Voiding)),
                Action::Crash(client),
            );
            may(s.books.state(&client.to_string()).is_some(), Action::Expire(client));
            may(b.clocks > 0 && !known.behind && s.number > 1, Action::ClockBack(client));
        }
        for limit in LIMITS {
            may(b.limits > 0 && limit != s.limit, Action::Limit(limit));
        }
        may(b.turns > 0, Action::Turn);
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut s = last.clone();
        match action {
            Action::Start(client) => s.send(client, Phase::Asking),
            Action::AskAgain(client) => s.send(client, s.clients[client].phase),
            Action::Finish(client) => s.send(client, Phase::Settling),
            Action::Deliver(client, request) => {
                s.network.remove(&(client, request));
                self.answer(&mut s, client, request);
            }
            Action::LoseAnswer(client, request) => {
                s.budget.lost -= 1;
                s.network.remove(&(client, request));
                s.deliver(self.mistake, client, request);
            }
            Action::Repeat(client, request) => {
                s.budget.repeats -= 1;
                self.answer(&mut s, client, request);
            }
            Action::Note(client) => {
                s.clients[client].sent += 1;
                s.network.insert((client, Request::Checkpoint(s.clients[client].sent)));
            }
            Action::Fail(client) => {
                s.budget.failures -= 1;
                s.send(client, Phase::Voiding);
            }
            Action::GiveUp(client) => {
                s.budget.given_up -= 1;
                s.send(client, Phase::Voiding);
            }
            Action::ServeUnreserved(client) => {
                s.budget.unreserved -= 1;
                s.send(client, Phase::Settling);
            }
            Action::Crash(client) => {
                s.budget.crashes -= 1;
                s.clients[client].phase = Phase::Crashed;
            }
            Action::Expire(client) => s.expire(self.mistake, client),
            Action::Limit(limit) => {
                s.budget.limits -= 1;
                s.limit = limit;
            }
            Action::Turn => {
                s.budget.turns -= 1;
                s.number += 1;
            }
            Action::ClockBack(client) => {
                s.budget.clocks -= 1;
                s.clients[client].behind = true;
            }
        }
        Some(s)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(LIMIT, |_, s: &State| s.is_within_limits()),
            Property::always(USED, |_, s: &State| s.used_is_the_sum_of_lines()),
            Property::always(RESERVED, |_, s: &State| s.reserved_is_the_sum_of_what_is_pending()),
            Property::always(ONCE, |_, s: &State| s.served_is_counted_once()),
            Property::always(NOTHING, |_, s: &State| s.refused_and_voided_count_nothing()),
            Property::always(CLOSED, |_, s: &State| !s.reopened),
            Property::always(SAME, |_, s: &State| !s.contradicted),
            Property::sometimes(LATE, |_, s: &State| s.has_settled_late()),
            Property::always(END, |model: &Self, s: &State| s.stopped(model.mistake).has_ended_well()),
        ]
    }
}

impl Small {
    fn answer(&self, s: &mut State, client: usize, request: Request) {
        let answer = s.deliver(self.mistake, client, request);
        s.hear(client, request, &answer);
    }
}

fn explore(name: &str, clients: usize, budget: Budget) {
    let checker = Small { clients, budget, mistake: None }.checker().threads(2).spawn_bfs().join();
    println!("{name}: {} states explored, {} distinct", checker.state_count(), checker.unique_state_count());
    if let Some((property, path)) = checker.discoveries().into_iter().find(|(property, _)| *property != LATE) {
        let last = path.last_state().clone();
        panic!("{property} does not hold after {:?}\n{last:#?}", path.into_actions());
    }
    assert!(checker.unique_state_count() > 10_000, "a world this small proves nothing");
    assert!(checker.discovery(LATE).is_some(), "a world in which nothing is late proves nothing");
}

#[test]
fn lost_answers_and_requests_that_come_twice_or_late() {
    let budget = Budget { lost: 1, repeats: 1, given_up: 1, failures: 1, ..Budget::default() };
    explore("lost answers and repeats", 2, budget);
}

#[test]
fn a_client_that_dies_and_one_that_serves_while_the_ledger_is_away() {
    let budget = Budget { crashes: 1, lost: 1, repeats: 1, unreserved: 1, failures: 1, ..Budget::default() };
    explore("a crash, and served unreserved", 2, budget);
}

#[test]
fn a_limit_that_changes_while_three_clients_ask() {
    explore("another limit", 3, Budget { limits: 1, crashes: 1, ..Budget::default() });
}

#[test]
fn a_period_that_ends_and_a_clock_that_goes_back() {
    let budget = Budget { turns: 1, clocks: 1, lost: 1, unreserved: 1, given_up: 1, ..Budget::default() };
    explore("another period", 2, budget);
}

#[test]
fn seeded_mistakes_are_caught() {
    let plain = Budget::default();
    let lost = Budget { lost: 1, ..plain };
    let repeated = Budget { repeats: 1, ..plain };
    let failing = Budget { failures: 1, given_up: 1, ..plain };
    let turning = Budget { turns: 1, clocks: 1, ..plain };
    let away = Budget { unreserved: 1, ..plain };
    for (mistake, budget, property) in [
        (Mistake::PostedTwice, repeated, ONCE),
        (Mistake::SettledAnew, lost, ONCE),
        (Mistake::VoidForgotten, failing, NOTHING),
        (Mistake::NameNotTaken, failing, NOTHING),
        (Mistake::ExpiredNotVoided, Budget { failures: 1, ..repeated }, SAME),
        (Mistake::PeriodReopened, turning, CLOSED),
        (Mistake::LimitReadBefore, plain, LIMIT),
        (Mistake::PendingNotJudged, plain, LIMIT),
        (Mistake::SettledAboveReservation, plain, ONCE),
        (Mistake::SettledInLatest, turning, RESERVED),
        (Mistake::NotGivenBack, plain, RESERVED),
        (Mistake::ExpiredNotGivenBack, plain, END),
        (Mistake::CheckpointForgotten, plain, END),
        (Mistake::ReservationPosted, plain, END),
        (Mistake::CheckpointGoesDown, plain, END),
        (Mistake::EndedExpires, plain, ONCE),
        (Mistake::LateCountedTwice, plain, ONCE),
        (Mistake::LineForgotten, plain, USED),
        (Mistake::LateRefused, plain, SAME),
        (Mistake::UnreservedRefused, away, END),
        (Mistake::ReservedAnew, repeated, RESERVED),
    ] {
        let model = Small { clients: 2, budget, mistake: Some(mistake) };
        let any = HasDiscoveries::AnyOf([property].into());
        let checker = model.checker().finish_when(any).spawn_bfs().join();
        assert!(checker.discovery(property).is_some(), "{mistake:?} was not caught by {property:?}");
        println!("{mistake:?}: caught by {property:?} after {} states", checker.unique_state_count());
    }
}
