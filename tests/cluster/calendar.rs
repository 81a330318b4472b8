//! A subscription that begins on the 31st: over the end of February, and over the end of a month in which Europe and
//! America change their clocks, the ledger's periods are Stripe's, and each invoice has the usage of its month to the unit.

use jiff::civil::Date;
use reqwest::Method;
use serde_json::{Value, json};
use tenant_operator::api::{Timestamp, Unit};
use tenant_operator::ledger::wire::PeriodUsage;

use super::usage_billing::{id, offer, plan, price, sent};
use crate::support::{Later, World, free_port, stripe, stripe_objects};

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;
const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// The next 31 January, and the last days of the two months after it.
fn days() -> [Date; 3] {
    let today = jiff::tz::Offset::UTC.to_datetime(jiff::Timestamp::now()).date();
    let january = |year: i16| Date::new(year, 1, 31).expect("a day");
    let begins = if today < january(today.year()) { january(today.year()) } else { january(today.year() + 1) };
    let last = |month: i8| Date::new(begins.year(), month, 1).expect("a day").last_of_month();
    [begins, last(2), last(3)]
}

/// Another service reports queries of a moment; web counts them in the tenant's period of it.
async fn reported(world: &World, tenant: &str, (name, queries): (&str, i64), time: Timestamp) {
    let event = json!({
        "specversion": "1.0", "type": "dev.tenant-operator.usage.v1", "source": "/calendar", "id": name, "subject": tenant,
        "time": time, "data": {"queries": queries},
    });
    let counted = async || {
        let call = world.http.post(format!("{}/v1/usage/events", world.web)).bearer_auth(TOKEN);
        let call = call.header("content-type", "application/cloudevents+json").body(event.to_string());
        let answer: Value = call.send().await.expect("web answers").json().await.unwrap_or_default();
        matches!(answer["events"][0]["state"].as_str(), Some("accepted" | "duplicate"))
    };
    world.until(&format!("{name} is counted"), counted).await;
}

/// The only subscription's present period.
async fn at_stripe(world: &World) -> (Timestamp, Timestamp) {
    let item = stripe_objects(world, "subscription").await[0]["items"]["data"][0].clone();
    let at = |key: &str| Timestamp::from_second(item[key].as_i64().expect("a time"));
    (at("current_period_start"), at("current_period_end"))
}

/// How much each final invoice bills of a price, with the time that it is for, the earliest first.
async fn invoiced(world: &World, price: &str) -> Vec<(Timestamp, Timestamp, i64)> {
    let invoices = stripe_objects(world, "invoice").await;
    let lines = invoices.iter().filter(|invoice| invoice["status"] != "draft");
    let lines = lines.flat_map(|invoice| invoice["lines"]["data"].as_array().cloned().unwrap_or_default());
    let of = |line: &Value| line["pricing"]["price_details"]["price"] == price;
    let number = |value: &Value| value.as_i64().expect("a number");
    let at = |value: &Value| Timestamp::from_second(number(value));
    let line = |l: Value| (at(&l["period"]["start"]), at(&l["period"]["end"]), number(&l["quantity"]));
    let mut all: Vec<_> = lines.filter(of).map(line).collect();
    all.sort_unstable();
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_from_the_31st_has_the_same_months_at_stripe_and_in_the_ledger() {
    let mut world = World::without_controller("calendar").await;
    world.controller_args(&["--usage-interval=1", "--usage-billing-interval=1"]);
    world.environment("USAGE_EVENTS_TOKEN", TOKEN);
    let [begins, february, march] = days();
    let moment = |day: Date, time: &str| format!("{day}T{time}Z").parse::<Timestamp>().expect("a time");
    let later = Later::begin(&mut world, moment(begins, "10:23:45"), free_port()).await;
    let meter = [("display_name", "queries"), ("event_name", "queries"), ("default_aggregation[formula]", "sum")];
    let meter = id(&stripe(&world, Method::POST, "/billing/meters", &meter).await);
    let price = price(&world, &meter, &[("unit_amount", "10")]).await;
    offer(&world, &plan("calendar", 2000, &json!([{"unit": "queries", "stripePriceId": price}]))).await;
    world.start_controller();
    world.start_web(&[]);
    world.create_paying("acme", "calendar").await;
    let tenant = world.tenants().get("acme").await.expect("there").spec.tenant_id.expect("an id");

    let (start, end) = at_stripe(&world).await;
    assert_eq!(start.to_string()[..10], begins.to_string());
    let clock = start.to_string()[11..19].to_owned();
    let ends = [february, march].map(|day| moment(day, &clock));
    assert_eq!(end, ends[0], "the last day of February, at the same time of day");
    // Usage of the first second, the last second, and of the day before that is reported late, by month.
    let months = [(100, 10, 1), (2000, 200, 20)];
    let (mut start, mut all, mut expected) = (start, months[0].0, Vec::new());
    reported(&world, &tenant, ("first-0", all), start).await;
    for (number, end) in ends.into_iter().enumerate() {
        let (first, last, late) = months[number];
        later.becomes(&mut world, end.plus(5)).await;
        let next = months.get(number + 1).map_or(7, |month| month.0);
        reported(&world, &tenant, (&format!("first-{}", number + 1), next), end).await;
        reported(&world, &tenant, (&format!("last-{number}"), last), end.plus(-1)).await;
        reported(&world, &tenant, (&format!("late-{number}"), late), end.plus(-DAY)).await;
        // The hour in which the month ended is over; the invoice is a draft.
        let hour = end.hour().plus(HOUR);
        later.becomes(&mut world, hour.plus(15)).await;
        all += next + last + late;
        sent(&world, all).await;
        later.becomes(&mut world, end.plus(HOUR + 60)).await;
        expected.push((start, end, first + last + late));
        let shown = async || invoiced(&world, &price).await.len() == expected.len();
        world.until("the invoice is final", shown).await;
        assert_eq!(invoiced(&world, &price).await, expected);
        start = end;
    }

    // The day of the anchor has come back, and the ledger's periods follow one another as Stripe's do.
    let present = at_stripe(&world).await;
    assert_eq!(present, (ends[1], moment(march.tomorrow().expect("a day").last_of_month(), &clock)));
    expected.push((present.0, present.1, 7));
    let mut periods = world.ledger().periods(&tenant).await.expect("the ledger answers");
    periods.sort_by_key(|usage| usage.period.start);
    let counted = |usage: &PeriodUsage| (usage.period.start, usage.period.end, usage.used[Unit::Queries]);
    assert_eq!(periods.iter().map(counted).collect::<Vec<_>>(), expected);
    let quota = async || world.status("acme").await.quota.map(|quota| (quota.period_start, quota.period_end));
    world.until("the quota's period is Stripe's", async || quota().await == Some(present)).await;
}
