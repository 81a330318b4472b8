"""Metered prices: what they cost, and when usage comes to an invoice."""

import time
import urllib.parse
import urllib.request
from datetime import datetime

import stripe

from meters import DAY, INVALID, make_meter, sender
from recorded import client, refused, sandbox

HOUR = 3600


def pay(session, card="4242424242424242"):
    form = urllib.parse.urlencode({"card": card}).encode()

    class Stay(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *args):
            return None

    try:
        return urllib.request.build_opener(Stay).open(session.url, form, timeout=20).status
    except urllib.error.HTTPError as error:
        return error.code


class Sale:
    """A customer with a clock of their own who bought a month of a plan and the usage of a meter."""

    def __init__(self, name, usage, card="4242424242424242", mode=None, trial=None, base=2000, start=None):
        self.api = api = client()
        self.product = api.v1.products.create({"name": name}).id
        self.meter = make_meter(api, name)
        self.start = start or int(time.time()) // HOUR * HOUR
        self.clock = api.v1.test_helpers.test_clocks.create({"frozen_time": self.start}).id
        self.customer = api.v1.customers.create({"email": f"{name}@example.com", "test_clock": self.clock}).id
        self.prices = {"usage": self.metered(usage).id}
        if base:
            monthly = {"product": self.product, "currency": "usd", "recurring": {"interval": "month"}}
            self.prices["base"] = api.v1.prices.create({**monthly, "unit_amount": base}).id
            self.prices["larger"] = api.v1.prices.create({**monthly, "unit_amount": 2 * base}).id
        lines = [{"price": self.prices["base"], "quantity": 1}] if base else []
        data = {"trial_period_days": trial} if trial else {}
        data |= {"billing_mode": {"type": mode}} if mode else {}
        session = api.v1.checkout.sessions.create({
            "mode": "subscription", "customer": self.customer, "line_items": lines + [{"price": self.prices["usage"]}],
            "success_url": "https://example.com/ok", "subscription_data": data,
        })
        assert session.amount_total == (0 if trial else base), session.amount_total
        assert pay(session, card) == 303
        self.id = api.v1.checkout.sessions.retrieve(session.id).subscription
        self.send = sender(api, name, self.customer)

    def metered(self, how):
        recurring = {"interval": "month", "usage_type": "metered", "meter": self.meter.id}
        return self.api.v1.prices.create({"product": self.product, "currency": "usd", "recurring": recurring, **how})

    def at(self, seconds):
        """The customer's clock, so long after the start."""
        self.api.v1.test_helpers.test_clocks.advance(self.clock, {"frozen_time": self.start + seconds})

    def use(self, value, at):
        return self.send(value, timestamp=self.start + at)

    def month(self):
        """When the present period ends, so long after the start."""
        return self.subscription()["items"].data[0].current_period_end - self.start

    def subscription(self):
        return self.api.v1.subscriptions.retrieve(self.id)

    def item(self, kind):
        return next(i for i in self.subscription()["items"].data if i.price.id == self.prices[kind])

    def update(self, *items, **more):
        return self.api.v1.subscriptions.update(self.id, {"items": list(items), **more})

    def invoices(self):
        """Oldest first."""
        return list(reversed(self.api.v1.invoices.list({"subscription": self.id, "limit": 100}).data))

    def preview(self):
        return self.api.v1.invoices.create_preview({"subscription": self.id})


def usage_of(invoice):
    """How much is billed on an invoice, and for how much money."""
    lines = [l for l in invoice.lines.data if l.pricing.price_details.price not in BASES]
    return sum(l.quantity for l in lines), sum(l.amount for l in lines)


BASES = set()


def sale(*args, **more):
    made = Sale(*args, **more)
    BASES.update(made.prices[kind] for kind in ("base", "larger") if kind in made.prices)
    return made


def check_metered_prices():
    """What Stripe refuses of prices, and of those who buy them."""
    api = client()
    product = api.v1.products.create({"name": "Usage"}).id
    meter, inactive = make_meter(api, "priced"), make_meter(api, "unpriced")
    api.v1.billing.meters.deactivate(inactive.id)
    metered = {"interval": "month", "usage_type": "metered", "meter": meter.id}
    create = lambda **how: api.v1.prices.create({"product": product, "currency": "usd", "recurring": metered, **how})
    price = create(unit_amount_decimal="0.25")
    assert (str(price.unit_amount_decimal), price.unit_amount, price.recurring.meter) == ("0.25", None, meter.id)
    assert create(unit_amount=3).unit_amount == 3 and create(unit_amount_decimal="2").unit_amount == 2
    tiers = [{"up_to": 1000, "unit_amount": 0}, {"up_to": "inf", "unit_amount_decimal": "0.5"}]
    tiered = create(billing_scheme="tiered", tiers_mode="graduated", tiers=tiers)
    assert tiered.unit_amount is None and tiered.tiers_mode == "graduated" and not hasattr(tiered, "tiers")
    shown = api.v1.prices.retrieve(tiered.id, {"expand": ["tiers"]}).tiers
    assert [(t.up_to, str(t.unit_amount_decimal)) for t in shown] == [(1000, "0"), (None, "0.5")]
    scheme = {"billing_scheme": "tiered", "tiers_mode": "graduated"}
    for how, word in [
        ({"unit_amount": 1, "unit_amount_decimal": "1"}, "only specify one"),
        ({"unit_amount_decimal": "0.0000000000001"}, "unit_amount_decimal"),
        ({"unit_amount_decimal": "-1"}, "unit_amount_decimal"),
        ({"unit_amount": "1.5"}, "Invalid integer"),
        ({}, "unit_amount"),
        ({"unit_amount": 1, "recurring": {"interval": "month", "usage_type": "metered"}}, "backed by meters"),
        ({"unit_amount": 1, "recurring": {"interval": "month", "meter": meter.id}}, "usage_type"),
        ({"unit_amount": 1, "recurring": {**metered, "meter": inactive.id}}, "not active"),
        ({"unit_amount": 1, "recurring": {**metered, "interval": "day"}}, "month"),
        ({"tiers": tiers, "unit_amount": 1}, "billing_scheme"),
        ({**scheme, "tiers": tiers, "unit_amount": 1}, "unit_amount"),
        ({**scheme, "tiers": tiers, "tiers_mode": "steps"}, "tiers_mode"),
        ({**scheme, "tiers": tiers[:1]}, "inf"),
        ({**scheme, "tiers": list(reversed(tiers))}, "ascending"),
        ({**scheme, "tiers": [{"up_to": "inf"}]}, "unit_amount"),
        ({**scheme, "tiers": tiers, "recurring": {"interval": "month"}}, "metered prices only"),
    ]:
        refused(INVALID, lambda: create(**how), word)
    missing = {"unit_amount": 1, "recurring": {**metered, "meter": "mtr_missing"}}
    refused(INVALID, lambda: create(**missing), code="resource_missing", status=404)
    refused(INVALID, lambda: create(unit_amount=1, transform_quantity={"divide_by": 2, "round": "up"}),
            code="parameter_unknown")

    customer = api.v1.customers.create({"email": "priced@example.com"}).id
    base = api.v1.prices.create({"product": product, "currency": "usd", "unit_amount": 1, "recurring": {"interval": "month"}})
    checkout = lambda *lines: api.v1.checkout.sessions.create({
        "mode": "subscription", "customer": customer, "line_items": list(lines), "success_url": "https://example.com/ok"})
    refused(INVALID, lambda: checkout({"price": price.id, "quantity": 1}),
            "Quantity should not be specified where usage_type is `metered`. Remove quantity from `line_items[0]`")
    refused(INVALID, lambda: checkout({"price": base.id}), "Quantity is required. Add `quantity` to `line_items[0]`")
    subscribe = lambda *items, **more: api.v1.subscriptions.create({"customer": customer, "items": list(items), **more})
    refused(INVALID, lambda: subscribe({"price": price.id, "quantity": 1}), "cannot set the quantity for metered plans")
    refused(INVALID, lambda: subscribe({"price": price.id}, {"price": price.id}), "multiple subscription items", price.id)
    refused(INVALID, lambda: subscribe(), "at least one")
    refused(INVALID, lambda: subscribe({"price": price.id}, billing_mode={"type": "strict"}), "billing_mode")
    subscription = subscribe({"price": price.id})
    item = subscription["items"].data[0]
    assert not hasattr(item, "quantity") and subscription.billing_mode.type == "flexible", "by the API's version"
    assert subscription.latest_invoice is None, "an invoice without lines is not made"
    change = lambda **how: api.v1.subscriptions.update(subscription.id, {"items": [{"id": item.id, **how}]})
    refused(INVALID, lambda: change(quantity=2), "cannot set the quantity for metered plans")
    refused(INVALID, lambda: change(deleted=True), "at least one")
    refused(INVALID, lambda: change(price="price_missing"), "No such price")
    add = lambda: api.v1.subscriptions.update(subscription.id, {"items": [{"price": price.id}]})
    refused(INVALID, add, "multiple subscription items")
    unknown = {"items": [{"id": "si_missing", "price": price.id}]}
    refused(INVALID, lambda: api.v1.subscriptions.update(subscription.id, unknown), code="resource_missing", status=404)

    old = client(stripe_version="2025-08-27.basil")
    classic = old.v1.subscriptions.create({"customer": customer, "items": [{"price": price.id}]})
    assert classic.billing_mode.type == "classic", "by the API's version"
    assert usage_of(api.v1.invoices.retrieve(classic.latest_invoice)) == (0, 0), "a line of nothing"
    migrate = lambda type_: api.v1.subscriptions.migrate(classic.id, {"billing_mode": {"type": type_}})
    refused(INVALID, lambda: migrate("classic"), "must be flexible")
    assert migrate("flexible").billing_mode.type == "flexible"
    refused(INVALID, lambda: migrate("flexible"), "already")
    refused(INVALID, lambda: api.v1.invoices.create_preview({}), "customer, subscription")
    other = api.v1.customers.create({"email": "none@example.com"}).id
    refused(INVALID, lambda: api.v1.invoices.create_preview({"customer": other}), code="invoice_upcoming_none", status=404)
    missing = lambda: api.v1.invoices.create_preview({"subscription": "sub_missing"})
    refused(INVALID, missing, code="resource_missing", status=404)


def check_months():
    """A month's usage is billed at its end, with what comes late until the invoice is final, and nothing after that."""
    tiers = [{"up_to": 100, "unit_amount": 0}, {"up_to": "inf", "unit_amount_decimal": "0.5"}]
    s = sale("months", {"billing_scheme": "tiered", "tiers_mode": "graduated", "tiers": tiers})
    assert [usage_of(i) for i in s.invoices()] == [(0, 0)] and s.invoices()[0].amount_paid == 2000
    s.at(10 * DAY)
    s.use(60, at=DAY)
    s.use(80, at=9 * DAY)
    preview = s.preview()
    assert preview.id.startswith("upcoming_in") and preview.status == "draft" and usage_of(preview) == (140, 20)
    assert preview.total == 2020 and len(s.invoices()) == 1, "nothing was made"
    assert s.api.v1.invoices.create_preview({"customer": s.customer}).total == 2020
    sandbox("/_sandbox/meters", {"shown_after_ms": 60_000})
    s.use(2, at=9 * DAY)
    assert usage_of(s.preview()) == (140, 20), "not shown yet"
    sandbox("/_sandbox/meters", {})
    month = s.month()
    s.at(month)
    draft = s.invoices()[-1]
    assert (draft.status, draft.amount_paid, usage_of(draft)) == ("draft", 0, (142, 21))
    assert draft.automatically_finalizes_at == s.start + month + HOUR
    item = s.item("usage")
    assert item.current_period_start == s.start + month, "the next period has begun"
    s.use(58, at=month - 1)
    s.use(7, at=month)
    s.at(month + HOUR - 1)
    assert s.invoices()[-1].status == "draft" and usage_of(s.preview()) == (7, 0)
    s.at(month + HOUR)
    final = s.invoices()[-1]
    lines = [l for l in final.lines.data if l.parent.subscription_item_details.subscription_item == item.id]
    assert [(l.quantity, l.amount, str(l.pricing.unit_amount_decimal)) for l in lines] == [(100, 0, "0"), (100, 50, "0.5")]
    assert {(l.period.start, l.period.end) for l in lines} == {(s.start, s.start + month)}
    assert (final.status, final.total, final.amount_paid) == ("paid", 2050, 2050), final
    s.use(1000, at=month - 1)
    s.at(month + DAY)
    assert usage_of(s.invoices()[-1]) == (200, 50), "a final invoice does not change"
    refused(INVALID, lambda: s.api.v1.invoices.finalize_invoice(final.id), "already finalized")
    s.use(-50, at=month + 2 * HOUR)
    assert sandbox("/_sandbox/drafts", {"seconds": 73 * HOUR}) == 400, "more than Stripe's 72 hours"
    assert sandbox("/_sandbox/drafts", {"seconds": 72 * HOUR}) == 200
    end = s.month()
    s.at(end)
    s.at(end + 71 * HOUR)
    assert s.invoices()[-1].status == "draft", "with a longer grace"
    early = s.api.v1.invoices.finalize_invoice(s.invoices()[-1].id)
    assert usage_of(early) == (0, 0), "usage below zero is none"
    s.at(end + 73 * HOUR)
    assert s.invoices()[-1].status == "paid" and s.invoices()[-1].total == 2000
    sandbox("/_sandbox/drafts", {"seconds": 0})
    declined = sale("declined", {"unit_amount": 1}, card="4000000000000341", trial=5)
    declined.at(5 * DAY)
    assert declined.subscription().status == "active", "not collected yet"
    declined.at(5 * DAY + HOUR)
    assert declined.subscription().status == "past_due" and declined.invoices()[-1].status == "open"


def check_trials():
    """Usage of a trial is listed, and free."""
    s = sale("trials", {"unit_amount_decimal": "1.5"}, trial=14)
    s.use(40, at=0)
    assert usage_of(s.preview()) == (40, 0) and s.preview().total == 2000
    s.at(14 * DAY)
    s.at(14 * DAY + HOUR)
    first = s.invoices()[-1]
    assert usage_of(first) == (40, 0) and first.total == 2000 and "(Free trial)" in str(first.lines.data)
    s.use(3, at=14 * DAY)
    end = s.month()
    s.at(end)
    s.at(end + HOUR)
    assert usage_of(s.invoices()[-1]) == (3, 5), "1.5 cents each, to the nearest cent"


def check_price_changes():
    """Another price in the middle of a period: flexible subscriptions bill the usage before it, classic ones lose it."""
    for mode, proration, before in [
        ("flexible", "create_prorations", (100, 100)),
        ("flexible", "always_invoice", (100, 100)),
        ("flexible", "none", (0, 0)),
        ("classic", "create_prorations", (0, 0)),
        ("classic", "always_invoice", (0, 0)),
    ]:
        s = sale(f"change_{mode}_{proration}", {"unit_amount": 1}, mode=mode)
        s.prices["dear"] = s.metered({"unit_amount": 3}).id
        s.at(10 * DAY)
        s.use(100, at=5 * DAY)
        made = len(s.invoices())
        changed = s.update({"id": s.item("usage").id, "price": s.prices["dear"]}, proration_behavior=proration)
        assert len(changed["items"].data) == 2 and s.item("dear") and not hasattr(s.item("dear"), "quantity")
        at_once = s.invoices()[made:]
        assert [usage_of(i) for i in at_once] == ([before] if proration == "always_invoice" and before != (0, 0) else []), mode
        s.at(20 * DAY)
        s.use(10, at=20 * DAY)
        s.use(1, at=5 * DAY)
        after = usage_of(s.preview())
        end = s.month()
        s.at(end)
        s.at(end + HOUR)
        waited = before if proration == "create_prorations" else (0, 0)
        assert usage_of(s.invoices()[-1]) == after == (10 + waited[0], 30 + waited[1]), (mode, proration, after)
        assert not any(l.parent.subscription_item_details.proration for l in s.invoices()[-1].lines.data), "no proration"
        assert s.invoices()[-1].total == 2000 + after[1]

    for mode, usage in [("flexible", (7, 7)), ("classic", (0, 0))]:
        s = sale(f"removed_{mode}", {"unit_amount": 1}, mode=mode)
        s.use(7, at=0)
        s.at(DAY)
        s.update({"id": s.item("usage").id, "deleted": True})
        s.use(9, at=DAY)
        end = s.month()
        s.at(end)
        s.at(end + HOUR)
        assert usage_of(s.invoices()[-1]) == usage, mode

    s = sale("added", {"unit_amount": 1})
    other = make_meter(s.api, "added_later")
    s.prices["later"] = s.metered({"unit_amount": 2, "recurring": {
        "interval": "month", "usage_type": "metered", "meter": other.id}}).id
    send = sender(s.api, "added_later", s.customer)
    send(5, timestamp=s.start)
    s.at(DAY)
    assert len(s.update({"price": s.prices["later"]})["items"].data) == 3
    send(4, timestamp=s.start + DAY)
    end = s.month()
    s.at(end)
    s.at(end + HOUR)
    assert usage_of(s.invoices()[-1]) == (4, 8), "from when it was added"

    s = sale("larger", {"unit_amount": 1})
    s.use(6, at=0)
    s.at(s.month() // 2)
    s.update({"id": s.item("base").id, "price": s.prices["larger"]}, proration_behavior="always_invoice")
    change = s.invoices()[-1]
    assert change.total == 1000 and [l.amount for l in change.lines.data] == [-1000, 2000], "a month is prorated, usage is not"
    end = s.month()
    s.at(end)
    s.at(end + HOUR)
    assert usage_of(s.invoices()[-1]) == (6, 6) and s.invoices()[-1].total == 4006, "usage at a price that stayed"

    for mode in ["flexible", "classic"]:
        s = sale(f"anchored_{mode}", {"unit_amount": 1}, mode=mode)
        s.prices["dear"] = s.metered({"unit_amount": 3}).id
        s.use(8, at=0)
        s.at(10 * DAY)
        change = {"id": s.item("usage").id, "price": s.prices["dear"]}
        s.update(change, billing_cycle_anchor="now", proration_behavior="none")
        assert usage_of(s.invoices()[-1]) == (8, 8), "a period that ends now bills what was used, at the price it had"
        s.use(2, at=10 * DAY)
        end = s.month()
        s.at(end)
        s.at(end + HOUR)
        assert usage_of(s.invoices()[-1]) == (2, 6)


def check_endings():
    """A subscription that ends with its period bills its usage, one that ends at once does so on request alone."""
    s = sale("ending", {"unit_amount": 1})
    s.use(30, at=0)
    s.api.v1.subscriptions.update(s.id, {"cancel_at_period_end": True})
    assert usage_of(s.preview()) == (30, 30) and s.preview().total == 30, "no further month"
    end = s.month()
    s.at(end)
    last = s.invoices()[-1]
    assert s.subscription().status == "canceled" and (last.status, last.total) == ("draft", 30)
    s.use(5, at=end - 1)
    s.use(1, at=end)
    s.at(end + HOUR)
    last = s.invoices()[-1]
    assert (last.status, last.amount_paid, usage_of(last)) == ("paid", 35, (35, 35)) and s.subscription().latest_invoice == last.id
    refused(INVALID, s.preview, code="invoice_upcoming_none", status=404)

    for invoice_now, usage in [(None, None), (False, None), (True, (30, 30))]:
        s = sale(f"ended_{invoice_now}", {"unit_amount": 1})
        s.use(30, at=0)
        s.at(DAY)
        made = len(s.invoices())
        how = {} if invoice_now is None else {"invoice_now": invoice_now}
        assert s.api.v1.subscriptions.cancel(s.id, how).status == "canceled"
        assert [usage_of(i) for i in s.invoices()[made:]] == ([usage] if usage else []), invoice_now
        s.at(s.month() + DAY)
        assert len(s.invoices()) == made + bool(usage), "and nothing later"
    prorated = lambda: s.api.v1.subscriptions.cancel(s.id, {"prorate": True})
    refused(INVALID, prorated, code="parameter_unknown")


def at(text):
    return int(datetime.fromisoformat(text).timestamp())


def check_calendar_months():
    """The day of the anchor is kept over short months, and each second of usage is on the invoice of its month."""
    for begun, ends in [
        ("2027-01-31T10:23:45+00:00", ["2027-02-28", "2027-03-31", "2027-04-30", "2027-05-31"]),
        ("2028-01-31T10:23:45+00:00", ["2028-02-29", "2028-03-31", "2028-04-30"]),
        ("2026-11-30T10:23:45+00:00", ["2026-12-30", "2027-01-30", "2027-02-28", "2027-03-30"]),
    ]:
        s = sale(f"from_{begun[:10].replace('-', '_')}", {"unit_amount": 1}, start=at(begun))
        assert s.subscription().billing_cycle_anchor == s.start
        start = s.start
        for number, day in enumerate(ends):
            end = at(f"{day}{begun[10:]}")
            item = s.item("usage")
            assert (item.current_period_start, item.current_period_end) == (start, end), (begun, day)
            assert s.preview().lines.data[-1].period.start == end, "the month to come"
            used = 100 * (number + 1)
            s.use(used, at=start - s.start)
            s.at(end - s.start - 1)
            s.use(10, at=end - s.start - 1)
            s.at(end - s.start)
            s.use(3, at=end - s.start)
            # What comes late is on the invoice of its month until that is final.
            s.at(end - s.start + HOUR - 1)
            s.use(5, at=end - s.start - DAY)
            assert s.invoices()[-1].status == "draft"
            s.at(end - s.start + HOUR)
            final = s.invoices()[-1]
            assert usage_of(final)[0] == used + 10 + 5 + (3 if number else 0), (begun, day, usage_of(final))
            lines = {l.pricing.price_details.price: (l.period.start, l.period.end) for l in final.lines.data}
            assert lines[s.prices["usage"]] == (start, end) and lines[s.prices["base"]][0] == end
            start = end
    refused(INVALID, lambda: s.at(s.month() + 45 * DAY), "two intervals")
    trial = sale("trial_to_the_31st", {"unit_amount": 1}, trial=14, start=at("2027-01-17T10:23:45+00:00"))
    anchor = at("2027-01-31T10:23:45+00:00")
    assert (trial.subscription().billing_cycle_anchor, trial.start + trial.month()) == (anchor, anchor)
    trial.at(trial.month())
    assert trial.start + trial.month() == at("2027-02-28T10:23:45+00:00"), "the first whole month"
    moved = at("2027-02-10T00:00:00+00:00")
    trial.at(moved - trial.start)
    changed = trial.update(billing_cycle_anchor="now", proration_behavior="none")
    assert changed.billing_cycle_anchor == moved and trial.start + trial.month() == at("2027-03-10T00:00:00+00:00")


CHECKS = [check_metered_prices, check_months, check_calendar_months, check_trials, check_price_changes, check_endings]
