//! A void gives everything back, before and after the reservation comes.

use tenant_operator::ledger::account::State;
use tenant_operator::ledger::decision::{Action, Answer};

use crate::books::{Books, checkpoint, ended, period, reserve, reserve_in, reserved, settle, void};

#[test]
fn a_void_gives_everything_back_even_what_a_checkpoint_said() {
    let mut books = Books::default();
    books.ask("a", reserve(10, 10));
    books.ask("a", checkpoint(4));
    assert_eq!(books.ask("a", void()), Answer::Voided);
    assert_eq!((books.taken(1), books.lines_of("a")), ((0, 0), vec![]));
    assert_eq!(books.state("a"), Some(State::Voided));
    assert_eq!(books.operations["a"].posted[crate::books::UNIT], 0);
    assert_eq!(books.ask("b", reserve(10, 10)), reserved(0));
}

#[test]
fn a_void_that_overtakes_its_reservation_takes_the_name_and_nothing_is_set_aside() {
    let mut books = Books::default();
    assert_eq!(books.ask("a", void()), Answer::Voided);
    assert!(books.tenants.get(crate::books::TENANT).is_none_or(|tenant| tenant.flows.is_empty()));
    for late in [reserve(5, 10), reserve(0, 10), settle(5)] {
        assert_eq!(books.ask("a", late), ended(State::Voided));
    }
    assert_eq!(books.taken(1), (0, 0));
    assert_eq!(books.ask("a", void()), Answer::Voided);
}

#[test]
fn a_void_of_an_unknown_operation_begins_no_period() {
    let mut books = Books::default();
    books.ask("a", Action::Void { period: period(2) });
    books.ask("b", reserve(5, 10));
    assert_eq!(books.taken(1), (0, 5));
}

#[test]
fn a_void_gives_back_in_the_period_of_the_reservation() {
    let mut books = Books::default();
    books.ask("old", reserve(5, 10));
    books.ask("new", reserve_in(2, 4, 10));
    assert_eq!(books.ask("old", Action::Void { period: period(2) }), Answer::Voided);
    assert_eq!((books.taken(1), books.taken(2)), ((0, 0), (0, 4)));
}
