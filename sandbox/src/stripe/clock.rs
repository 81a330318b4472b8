//! The account's time: the real one, moved forward on demand, and test clocks with a time of their own.

use serde_json::{Value, json};

use super::fields::text;
use super::periods::{self, DAY};
use super::problem::{Events, Problem};
use super::{Data, TEST_CLOCK, invoices, proration, refunds, sessions, subscriptions};

impl Data {
    /// The account's time, in seconds since 1970.
    pub fn now(&self) -> i64 {
        jiff::Timestamp::now().as_second() + self.ahead
    }

    /// The time of a customer: that of its test clock, or else the account's.
    pub fn now_of(&self, customer: &Value) -> i64 {
        let clock = customer.as_str().and_then(|customer| self.clocked.get(customer));
        clock.and_then(|clock| frozen(self, clock)).unwrap_or_else(|| self.now())
    }
}

/// A test clock's time.
pub fn frozen(data: &Data, id: &str) -> Option<i64> {
    data.list(TEST_CLOCK).iter().find(|c| c["id"] == id)?["frozen_time"].as_i64()
}

fn frozen_time(p: &Value) -> Result<i64, Problem> {
    let time = p["frozen_time"].as_str().and_then(|t| t.parse().ok());
    time.ok_or_else(|| Problem::invalid("Invalid integer: frozen_time"))
}

/// Seconds that a test clock lives: 30 days, whatever its months are
/// (<https://support.stripe.com/questions/data-retention-policy-for-test-subscriptions>).
const KEPT: i64 = 30 * DAY;

pub fn create(data: &mut Data, p: &Value) -> Result<Value, Problem> {
    let time = frozen_time(p)?;
    let clock = json!({
        "id": data.next_id("clock"), "object": TEST_CLOCK, "created": data.now(), "livemode": false, "name": text(p, "name"),
        "frozen_time": time, "deletes_after": data.now() + KEPT, "status": "ready", "status_details": {},
    });
    data.insert(TEST_CLOCK, clock.clone());
    Ok(clock)
}

/// Moves a clock forward, and with it what depends on its customers' time. The answer says `advancing`, as Stripe's
/// does; the next read says `ready`.
pub fn advance(data: &mut Data, id: &str, p: &Value, events: &mut Events) -> Result<Value, Problem> {
    let time = frozen_time(p)?;
    let has_subscription = data.list("subscription").iter().any(|s| {
        let clock = s["customer"].as_str().and_then(|customer| data.clocked.get(customer));
        s["status"] != "canceled" && clock.is_some_and(|clock| clock == id)
    });
    let clock = data.find(TEST_CLOCK, id)?;
    let now = clock["frozen_time"].as_i64().unwrap_or(0);
    if time <= now {
        return Err(Problem::bad("a test clock can only be advanced to a later frozen_time"));
    }
    // "Cannot be more than two intervals in the future from the shortest subscription in this test clock. If there are
    // no subscriptions in this test clock, it cannot be more than two years in the future":
    // <https://docs.stripe.com/api/test_clocks/advance>
    let months = if has_subscription { 2 } else { 24 };
    if time > (0..months).fold(now, |from, _| periods::end(now, from)) {
        return Err(Problem::bad("a test clock cannot be advanced by more than two intervals, or two years"));
    }
    clock["frozen_time"] = json!(time);
    let clock = clock.clone();
    tick(data, events);
    events.push(("test_helpers.test_clock.ready", clock.clone()));
    let mut advancing = clock;
    advancing["status"] = json!("advancing");
    Ok(advancing)
}

/// Lets happen what is due by now: sessions expire, periods end, late invoices are tried again.
pub fn tick(data: &mut Data, events: &mut Events) {
    sessions::expire_old(data, events);
    refunds::go_on(data, events);
    subscriptions::renew_due(data, events);
    proration::expire_waiting(data, events);
    invoices::finalize_due(data, events);
    invoices::retry_due(data, events);
}
