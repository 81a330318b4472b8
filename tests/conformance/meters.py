"""Billing meters, their events and summaries: what the sandbox takes, and what it refuses as Stripe does."""

import threading
import time

import stripe

from receiver import receiver
from recorded import ENV, client, refused, sandbox

INVALID = stripe.InvalidRequestError
DAY = 24 * 3600


def eventually(what, check):
    for _ in range(100):
        if check():
            return
        time.sleep(0.05)
    raise AssertionError(what)


def make_meter(stripe_, name, formula="sum", **more):
    params = {"display_name": name.title(), "event_name": name, "default_aggregation": {"formula": formula}, **more}
    return stripe_.v1.billing.meters.create(params)


def sender(stripe_, name, customer):
    """Sends a value to a meter."""

    def send(value, **more):
        payload = {"stripe_customer_id": customer, **({} if value is None else {"value": str(value)})}
        return stripe_.v1.billing.meter_events.create({"event_name": name, "payload": payload, **more})

    return send


def totals(stripe_, meter, customer, start, end, **more):
    params = {"customer": customer, "start_time": start, "end_time": end, **more}
    return stripe_.v1.billing.meters.event_summaries.list(meter, params)


def check_meters():
    """Made, listed, renamed, deactivated and reactivated; the rest of a meter cannot be changed."""
    api = client()
    meters = api.v1.billing.meters
    meter = make_meter(api, "queries")
    assert (meter.status, meter.value_settings.event_payload_key) == ("active", "value")
    assert (meter.customer_mapping.type, meter.customer_mapping.event_payload_key) == ("by_id", "stripe_customer_id")
    other = make_meter(
        api, "tokens", "last", event_time_window="hour", value_settings={"event_payload_key": "tokens"},
        customer_mapping={"type": "by_id", "event_payload_key": "payer"},
    )
    assert meters.retrieve(other.id).to_dict() == other.to_dict()
    refused(INVALID, lambda: make_meter(api, "queries"), "queries", "already exists")
    for wrong, words in [
        ({"display_name": None}, ["display_name"]),
        ({"event_name": None}, ["event_name"]),
        ({"default_aggregation": {}}, ["default_aggregation[formula]"]),
        ({"value_settings": {"other": "a"}}, ["value_settings.other"]),
        ({"unit": "queries"}, ["unit"]),
    ]:
        params = {"display_name": "A", "event_name": "a", "default_aggregation": {"formula": "sum"}, **wrong}
        params = {name: value for name, value in params.items() if value is not None}
        code = "parameter_unknown" if words[0] in ("unit", "value_settings.other") else "parameter_missing"
        refused(INVALID, lambda: meters.create(params), *words, code=code)
    refused(INVALID, lambda: make_meter(api, "a", "average"), "count, last, sum")
    refused(INVALID, lambda: make_meter(api, "a", event_time_window="week"), "day, hour")
    refused(INVALID, lambda: make_meter(api, "a" * 101), "100 characters")
    mapping = {"type": "by_email", "event_payload_key": "email"}
    refused(INVALID, lambda: make_meter(api, "a", customer_mapping=mapping), "by_id")
    renamed = meters.update(meter.id, {"display_name": "Questions"})
    assert (renamed.display_name, renamed.event_name) == ("Questions", "queries")
    for immutable in ["event_name", "event_time_window", "status"]:
        refused(INVALID, lambda: meters.update(meter.id, {immutable: "day"}), immutable, code="parameter_unknown")
    change = {"default_aggregation": {"formula": "count"}}
    refused(INVALID, lambda: meters.update(meter.id, change), "default_aggregation", code="parameter_unknown")
    inactive = meters.deactivate(meter.id)
    assert inactive.status == "inactive" and inactive.status_transitions.deactivated_at
    refused(INVALID, lambda: meters.deactivate(meter.id), "inactive")
    again = make_meter(api, "queries")
    refused(INVALID, lambda: meters.reactivate(meter.id), "already exists")
    assert meters.deactivate(again.id).status == "inactive"
    active = meters.reactivate(meter.id)
    assert active.status == "active" and active.status_transitions.deactivated_at is None
    refused(INVALID, lambda: meters.reactivate(meter.id), "active")
    listed = lambda **by: {m.id for m in meters.list({"limit": 100, **by}).data}
    assert listed(status="active") >= {meter.id, other.id} and again.id not in listed(status="active")
    assert again.id in listed(status="inactive") and listed() >= {meter.id, other.id, again.id}
    refused(INVALID, lambda: meters.retrieve("mtr_missing"), code="resource_missing", status=404)
    types = {e.type for e in api.v1.events.list({"limit": 50}).data}
    assert types >= {f"billing.meter.{what}" for what in ("created", "updated", "deactivated", "reactivated")}, types


def check_meter_events():
    """Usage is counted once, and what Stripe refuses at once is refused at once."""
    api = client()
    meter = make_meter(api, "sums")
    customer = api.v1.customers.create({"email": "sums@example.com"}).id
    send = sender(api, "sums", customer)
    now = int(time.time())
    event = send(25, identifier="first", timestamp=now)
    assert (event.identifier, event.timestamp, event.payload["value"]) == ("first", now, "25")
    assert send(5).identifier and send(-3).object == "billing.meter_event"
    start = now - now % 60 - 60 * DAY
    total = lambda: totals(api, meter.id, customer, start, start + 61 * DAY).data[0].aggregated_value
    assert total() == 27

    duplicate = refused(INVALID, lambda: send(25, identifier="first"), "An event already exists with identifier first.")
    assert duplicate.headers["stripe-should-retry"] == "false", "another try changes nothing"
    key = {"idempotency_key": "sums-1"}
    params = {"event_name": "sums", "identifier": "first", "payload": {"stripe_customer_id": customer, "value": "1"}}
    for _ in range(2):
        again = refused(INVALID, lambda: api.v1.billing.meter_events.create(params, key), "already exists")
        assert again.headers["stripe-should-retry"] == "false", "a saved answer says so, too"
    for value in ["1.5", "1e3", "+1", "1,000", "ten", " 1"]:
        refused(INVALID, lambda: send(value), "whole number", value)
    refused(INVALID, lambda: send(10**15), "15 digits", str(10**15))
    assert send(10**15 - 1, identifier="large", timestamp=now - 50 * 60) and total() == 27 + 10**15 - 1
    api.v1.billing.meter_event_adjustments.create(
        {"event_name": "sums", "type": "cancel", "cancel": {"identifier": "large"}}
    )
    refused(INVALID, lambda: send(None), "value")
    refused(INVALID, lambda: send("1" * 101), "payload[value]")
    refused(INVALID, lambda: sender(api, "sums", "")(1), "stripe_customer_id")
    refused(INVALID, lambda: sender(api, "sums", "cus_missing")(1), "No such customer: 'cus_missing'", code="resource_missing")
    refused(INVALID, lambda: sender(api, "nothing", customer)(1), "No active meter found", "nothing")
    refused(INVALID, lambda: send(1, timestamp=now - 36 * DAY), "35 calendar days")
    refused(INVALID, lambda: send(1, timestamp=now + 400), "5 minutes")
    refused(INVALID, lambda: send(1, timestamp="yesterday"), "Invalid integer")
    refused(INVALID, lambda: send(1, identifier="a" * 101), "100 characters")
    refused(INVALID, lambda: send(1, unit="queries"), code="parameter_unknown")
    create = api.v1.billing.meter_events.create
    refused(INVALID, lambda: create({"event_name": "sums"}), "payload", code="parameter_missing")
    refused(INVALID, lambda: create({"payload": {"value": "1"}}), "event_name", code="parameter_missing")
    assert send(1, timestamp=now - 34 * DAY) and send(1, timestamp=now + 200) and send(1, identifier="a" * 100)
    assert total() == 30, "and nothing that was refused"
    api.v1.billing.meters.deactivate(meter.id)
    refused(INVALID, lambda: send(1), "No active meter found")

    make_meter(api, "counts", "count", customer_mapping={"type": "by_id", "event_payload_key": "payer"})
    counted = {"event_name": "counts", "payload": {"payer": customer}}
    assert create(counted).payload.to_dict() == {"payer": customer}, "a meter that counts needs no value"


def check_adjustments():
    """An event is cancelled once, within a day; an identifier is unique for a day and no longer."""
    api = client()
    meter = make_meter(api, "cancelled")
    clock = api.v1.test_helpers.test_clocks.create({"frozen_time": int(time.time()) // DAY * DAY})
    customer = api.v1.customers.create({"email": "c@example.com", "test_clock": clock.id}).id
    send = sender(api, "cancelled", customer)
    cancel = lambda identifier, **more: api.v1.billing.meter_event_adjustments.create(
        {"event_name": "cancelled", "type": "cancel", "cancel": {"identifier": identifier}, **more}
    )
    total = lambda: totals(api, meter.id, customer, clock.frozen_time, clock.frozen_time + 3 * DAY).data[0].aggregated_value
    for identifier in ["one", "two", "three"]:
        assert send(1, identifier=identifier).timestamp == clock.frozen_time, "by the customer's clock"
    adjustment = cancel("one")
    assert (adjustment.status, adjustment.cancel.identifier) == ("pending", "one") and total() == 2
    refused(INVALID, lambda: cancel("one"), "already cancelled")
    refused(INVALID, lambda: cancel("four"), "No event found")
    refused(INVALID, lambda: cancel("two", event_name="nothing"), "No active meter found")
    refused(INVALID, lambda: cancel("two", type="replace"), "must be cancel")
    refused(INVALID, lambda: cancel(None), "cancel[identifier]", code="parameter_missing")
    refused(INVALID, lambda: send(1, identifier="one"), "already exists")
    api.v1.test_helpers.test_clocks.advance(clock.id, {"frozen_time": clock.frozen_time + DAY + 1})
    refused(INVALID, lambda: cancel("two"), "24 hours")
    assert send(1, identifier="two", timestamp=clock.frozen_time) and total() == 3, "forgotten after a day, and counted again"


def check_summaries():
    """Summaries by the minute, hour and day: aligned, their end left out, and late."""
    api = client()
    meter, windowed = make_meter(api, "summed"), make_meter(api, "newest", event_time_window="hour")
    customer = api.v1.customers.create({"email": "s@example.com"}).id
    day = int(time.time()) // DAY * DAY - 2 * DAY
    for at, value in [(day, 1), (day + 59, 2), (day + 60, 4), (day + 3600, 8), (day + DAY, 16)]:
        sender(api, "summed", customer)(value, timestamp=at)
        sender(api, "newest", customer)(value, timestamp=at)
    values = lambda start, end, **more: [
        (s.start_time - day, s.aggregated_value) for s in totals(api, meter.id, customer, start, end, **more).data
    ]
    assert values(day, day + 60) == [(0, 3.0)] and values(day, day + 120) == [(0, 7.0)], "its end is left out"
    assert values(day + 120, day + 180) == [(120, 0.0)]
    assert values(day, day + 2 * DAY, value_grouping_window="day") == [(DAY, 16.0), (0, 15.0)]
    assert values(day, day + DAY, value_grouping_window="hour") == [(3600, 8.0), (0, 7.0)]
    first = totals(api, meter.id, customer, day, day + 2 * DAY, value_grouping_window="day", limit=1)
    assert first.has_more and [s.aggregated_value for s in first.auto_paging_iter()] == [16.0, 15.0]
    assert totals(api, windowed.id, customer, day, day + DAY).data[0].aggregated_value == 12.0, "the newest of each hour"
    for start, end, more, word in [
        (day + 1, day + 60, {}, "start_time must be aligned with minute"),
        (day, day + 61, {}, "end_time must be aligned with minute"),
        (day + 60, day + DAY, {"value_grouping_window": "hour"}, "hour boundaries"),
        (day + 3600, day + DAY, {"value_grouping_window": "day"}, "UTC day boundaries"),
        (day, day + DAY, {"value_grouping_window": "month"}, "day, hour"),
        (day, day, {}, "after start_time"),
        (-60, day, {}, "Invalid integer"),
        (0, day, {"value_grouping_window": "hour"}, "too long"),
        (day, day + 60, {"limit": 101}, "limit"),
    ]:
        refused(INVALID, lambda: totals(api, meter.id, customer, start, end, **more), word)
    refused(INVALID, lambda: totals(api, "mtr_missing", customer, day, day + 60), code="resource_missing", status=404)
    refused(INVALID, lambda: totals(api, meter.id, "cus_missing", day, day + 60), code="resource_missing", status=404)
    missing = lambda: api.v1.billing.meters.event_summaries.list(meter.id, {"customer": customer, "start_time": day})
    refused(INVALID, missing, "end_time", code="parameter_missing")
    assert sandbox("/_sandbox/meters", {"shown_after_ms": 1000}) == 204
    sender(api, "summed", customer)(32, timestamp=day)
    assert values(day, day + 60) == [(0, 3.0)], "taken, and not shown yet"
    eventually("it is shown", lambda: values(day, day + 60) == [(0, 35.0)])
    assert sandbox("/_sandbox/meters", {}) == 204


def check_limits():
    """One call at a time for each customer and meter, so many a second, and keys with permissions."""
    api = client()
    make_meter(api, "limited")
    customers = [api.v1.customers.create({"email": f"l{i}@example.com"}).id for i in range(2)]
    assert sandbox("/_sandbox/meters", {"takes_ms": 700}) == 204
    running = threading.Thread(target=sender(client(), "limited", customers[0]), args=(1,))
    running.start()
    time.sleep(0.3)
    locked = refused(stripe.RateLimitError, lambda: sender(api, "limited", customers[0])(1), code="lock_timeout", status=429)
    assert locked.headers["stripe-should-retry"] == "true" and "stripe-rate-limited-reason" not in locked.headers
    assert sender(api, "limited", customers[1])(1), "another customer's call is no matter"
    running.join()
    assert sandbox("/_sandbox/meters", {"calls_per_second": 2}) == 204
    send = sender(api, "limited", customers[0])
    outcomes = []
    for _ in range(4):
        try:
            outcomes.append(send(1).object)
        except stripe.RateLimitError as error:
            outcomes.append((error.json_body["error"]["code"], error.headers["stripe-rate-limited-reason"]))
    assert outcomes == ["billing.meter_event"] * 2 + [("rate_limit", "endpoint-rate")] * 2, outcomes
    assert sandbox("/_sandbox/meters", {}) == 204

    permissions = {"Billing Meters": "Read"}
    assert sandbox("/_sandbox/restricted-keys", {"key": "rk_test_meters", "permissions": permissions}) == 201
    restricted = client("rk_test_meters")
    assert restricted.v1.billing.meters.list({"limit": 1}).data
    for call, right in [
        (lambda: make_meter(restricted, "r"), "rak_billing_meter_write"),
        (lambda: sender(restricted, "limited", customers[0])(1), "rak_billing_meter_event_write"),
        (lambda: restricted.v2.core.events.list(), "rak_event_read"),
    ]:
        refused(stripe.PermissionError, call, right, status=403)


def check_error_reports():
    """What is found wrong after it was taken is reported by thin events, which are signed and fetched."""
    server, got = receiver()
    api = client()
    types = ["v1.billing.meter.error_report_triggered", "v1.billing.meter.no_meter_found"]
    destination = api.v2.core.event_destinations.create({
        "name": "Reports", "type": "webhook_endpoint", "event_payload": "thin", "enabled_events": types,
        "webhook_endpoint": {"url": f"http://127.0.0.1:{server.server_port}/"},
    })
    meter = make_meter(api, "reported")
    gone = api.v1.customers.create({"email": "gone@example.com"}).id
    customer = api.v1.customers.create({"email": "reported@example.com"}).id
    api.v1.customers.delete(gone)

    def report():
        """The report that came next: as it was delivered, and as it was fetched."""
        eventually("a report arrives", lambda: got)
        body, signature = got.pop(0)
        assert b'"data"' not in body, "what is delivered has no data"
        notification = api.parse_event_notification(body, signature, destination.webhook_endpoint.signing_secret)
        event = notification.fetch_event()
        return notification, event, event.data.reason.error_types[0]

    assert sender(api, "reported", gone)(1, identifier="gone-1"), "a deleted customer is missed later"
    notification, event, error = report()
    assert notification.type == types[0] and notification.related_object.id == meter.id
    assert notification.fetch_related_object().id == meter.id
    assert (error.code, error.error_count) == ("meter_event_customer_not_found", 1)
    refused(INVALID, lambda: sender(api, "reported", customer)(1, identifier="gone-1"), "already exists")
    assert sandbox("/_sandbox/meters", {"report_errors_later": True}) == 204
    send = sender(api, "reported", customer)
    now = int(time.time())
    for wrong, code in [
        (lambda: send("1.5"), "meter_event_invalid_value"),
        (lambda: send(None), "meter_event_invalid_value"),
        (lambda: send(10**15), "meter_event_value_too_many_digits"),
        (lambda: sender(api, "reported", "")(1), "meter_event_no_customer_defined"),
        (lambda: sender(api, "reported", "cus_missing")(1), "meter_event_customer_not_found"),
        (lambda: send(1, timestamp=now - 36 * DAY), "timestamp_too_far_in_past"),
        (lambda: send(1, timestamp=now + 400), "timestamp_in_future"),
        (lambda: sender(api, "nowhere", customer)(1), "no_meter"),
    ]:
        assert wrong().object == "billing.meter_event", "taken"
        notification, event, error = report()
        assert error.code == code and error.sample_errors[0].request.identifier, (code, event)
        assert notification.type == types[code == "no_meter"]
    api.v1.billing.meters.deactivate(meter.id)
    key = {"idempotency_key": "reported-key"}
    params = {"event_name": "reported", "payload": {"stripe_customer_id": customer, "value": "1"}}
    assert api.v1.billing.meter_events.create(params, key)
    _, _, error = report()
    assert (error.code, error.sample_errors[0].request.identifier) == ("archived_meter", "reported-key")
    assert sandbox("/_sandbox/meters", {}) == 204
    day = now // DAY * DAY
    assert totals(api, meter.id, customer, day - 40 * DAY, day + DAY).data[0].aggregated_value == 0
    listed = api.v2.core.events.list({"object_id": meter.id, "types": types}).data
    assert len(listed) == 9 and all(e.related_object.id == meter.id for e in listed), len(listed)
    assert all(e.type.count(".") < 4 for e in api.v1.events.list({"limit": 100}).data), "thin events are in API v2 alone"
    wrong = {"name": "A", "type": "webhook_endpoint", "event_payload": "snapshot", "enabled_events": types,
             "webhook_endpoint": {"url": "http://127.0.0.1:1/"}}
    try:
        api.v2.core.event_destinations.create(wrong)
        raise AssertionError("a destination that is not modelled was made")
    except stripe.StripeError as error:
        assert error.http_status == 400
    api.v2.core.event_destinations.delete(destination.id)
    assert not api.v2.core.event_destinations.list().data
    # The sandbox's own setting, and its own secret.
    assert sandbox("/_sandbox/webhooks", {"thin_url": f"http://127.0.0.1:{server.server_port}/"}) == 204
    make_meter(api, "late")
    sender(api, "late", gone)(1)
    eventually("a report arrives", lambda: got)
    assert api.parse_event_notification(*got.pop(0), ENV["STRIPE_WEBHOOK_SECRET"]).type == types[0]
    server.shutdown()


CHECKS = [check_meters, check_meter_events, check_adjustments, check_summaries, check_limits, check_error_reports]
