"""The vendors' official SDKs drive the sandbox, to see whether it speaks the protocols."""

import html
import json
import os
import threading
import time
import urllib.request

import openai
import pinecone
import stripe

from receiver import receiver

ENV = os.environ


def post(url, body, content_type="application/json"):
    request = urllib.request.Request(url, data=body.encode(), headers={"content-type": content_type}, method="POST")
    opener = urllib.request.build_opener(NoRedirect)
    try:
        return opener.open(request, timeout=20).status
    except urllib.error.HTTPError as error:
        return error.code


class NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args):
        return None


def check_stripe_accounts():
    urls = {"api": ENV["STRIPE_URL"]}
    ours = stripe.StripeClient("sk_test_conformance", base_addresses=urls)
    live = stripe.StripeClient("sk_live_conformance", base_addresses=urls)
    assert post(ENV["SANDBOX_URL"] + "/_sandbox/keys", '{"key": "sk_test_theirs", "account": "acct_theirs"}') == 204
    theirs = stripe.StripeClient("sk_test_theirs", base_addresses=urls)
    accounts = [client.v1.accounts.retrieve_current().id for client in (ours, live, theirs)]
    assert accounts[0] == accounts[1] and accounts[2] == "acct_theirs", accounts
    customer = ours.v1.customers.create({"email": "accounts@example.com"})
    assert customer.livemode is False
    for other in (live, theirs):
        try:
            other.v1.customers.retrieve(customer.id)
            raise AssertionError("a customer was found with a key of another account or mode")
        except stripe.InvalidRequestError as error:
            assert error.http_status == 404 and error.code == "resource_missing", error
        assert other.v1.customers.list({"email": "accounts@example.com"}).data == []
        assert other.v1.subscriptions.list({"status": "all"}).data == []
    assert live.v1.customers.create({"email": "live@example.com"}).livemode is True
    assert ours.v1.customers.delete(customer.id).deleted
    assert ours.v1.customers.retrieve(customer.id).deleted, "deleted is not unknown"


def check_stripe_endings():
    """Cancellations by date, changes that wait for a confirmation, and invoices that are not collected by themselves."""
    client = stripe.StripeClient("sk_test_conformance", base_addresses={"api": ENV["STRIPE_URL"]})
    form = "application/x-www-form-urlencoded"
    customer = client.v1.customers.create({"email": "endings@example.com"})
    session = client.v1.checkout.sessions.create({
        "mode": "subscription", "customer": customer.id, "line_items": [{"price": "price_small", "quantity": 1}],
        "success_url": "https://example.com/ok",
    })
    assert post(session.url, "card=4000002760003184&challenge=complete", form) == 303
    id = client.v1.checkout.sessions.retrieve(session.id).subscription
    ending = client.v1.subscriptions.update(id, {"cancel_at_period_end": True})
    end = ending["items"].data[0].current_period_end
    assert ending.cancel_at_period_end and ending.cancel_at == end
    by_date = client.v1.subscriptions.update(id, {"cancel_at": "min_period_end"})
    assert not by_date.cancel_at_period_end and by_date.cancel_at == end
    try:
        client.v1.subscriptions.update(id, {"cancel_at": end, "cancel_at_period_end": True})
        raise AssertionError("both ways to cancel were taken")
    except stripe.InvalidRequestError:
        pass
    assert client.v1.subscriptions.update(id, {"cancel_at": ""}).cancel_at is None
    change = {"items": [{"id": ending["items"].data[0].id, "price": "price_large"}], "proration_behavior": "always_invoice"}
    try:
        client.v1.subscriptions.update(id, {**change, "payment_behavior": "error_if_incomplete"})
        raise AssertionError("a card that asks for the customer was charged without them")
    except stripe.CardError as error:
        assert error.code == "subscription_payment_intent_requires_action", error.code
    try:
        client.v1.subscriptions.update(id, {**change, "payment_behavior": "pending_if_incomplete", "metadata": {"a": "b"}})
        raise AssertionError("metadata was taken with a change that waits")
    except stripe.InvalidRequestError:
        pass
    waiting = client.v1.subscriptions.update(id, {**change, "payment_behavior": "pending_if_incomplete"})
    assert waiting.pending_update.subscription_items[0].price.id == "price_large"
    assert waiting["items"].data[0].price.id == "price_small", "as it was"
    invoice = client.v1.invoices.retrieve(waiting.latest_invoice)
    assert invoice.status == "open" and invoice.auto_advance
    assert client.v1.invoices.update(invoice.id, {"auto_advance": False}).auto_advance is False
    assert client.v1.invoices.void_invoice(invoice.id).status == "void"
    assert client.v1.subscriptions.retrieve(id).pending_update is None, "dropped with its invoice"
    waiting = client.v1.subscriptions.update(id, {**change, "payment_behavior": "pending_if_incomplete"})
    invoice = client.v1.invoices.retrieve(waiting.latest_invoice)
    assert post(invoice.hosted_invoice_url, "", form) == 200
    confirmed = client.v1.subscriptions.retrieve(id)
    assert confirmed.pending_update is None and confirmed["items"].data[0].price.id == "price_large"
    assert client.v1.invoices.retrieve(invoice.id).status == "paid"
    configurations = client.v1.billing_portal.configurations.list({"is_default": True, "active": True})
    assert configurations.data, "the portal has settings"
    assert client.v1.customers.delete(customer.id).deleted


def check_stripe():
    client = stripe.StripeClient("sk_test_conformance", base_addresses={"api": ENV["STRIPE_URL"]})
    customer = client.v1.customers.create({"email": "conformance@example.com", "metadata": {"tenant_id": "conformance"}})
    found = client.v1.customers.list({"email": "conformance@example.com"})
    assert [c.id for c in found.data] == [customer.id]
    params = {
        "mode": "subscription",
        "customer": customer.id,
        "line_items": [{"price": "price_paid", "quantity": 1}],
        "success_url": "https://example.com/ok",
        "metadata": {"tenant_id": "conformance"},
        "subscription_data": {"metadata": {"tenant_id": "conformance"}},
    }
    session = client.v1.checkout.sessions.create(params, {"idempotency_key": "conformance-1"})
    # Stripe compares the parameters, not the order they come in.
    again = client.v1.checkout.sessions.create(
        dict(reversed(params.items())), {"idempotency_key": "conformance-1"}
    )
    assert session.id == again.id and session.status == "open", "the same key answers the same session"
    try:
        client.v1.checkout.sessions.create({**params, "mode": "setup"}, {"idempotency_key": "conformance-1"})
        raise AssertionError("a key with other parameters was taken")
    except stripe.IdempotencyError:
        pass
    form = "application/x-www-form-urlencoded"
    assert post(session.url, "card=4000000000000002", form) == 402, "a declined card"
    assert post(session.url, "card=4242424242424242", form) == 303
    session = client.v1.checkout.sessions.retrieve(session.id)
    assert session.status == "complete" and session.payment_status == "paid"
    subscription = client.v1.subscriptions.retrieve(session.subscription)
    assert subscription.status == "active" and subscription.metadata["tenant_id"] == "conformance"
    assert subscription["items"].data[0].price.id == "price_paid"
    invoice = client.v1.invoices.list({"subscription": subscription.id}).data[0]
    assert invoice.parent.subscription_details.subscription == subscription.id
    payment = client.v1.invoice_payments.list({"invoice": invoice.id}).data[0]
    part = client.v1.refunds.create({"payment_intent": payment.payment.payment_intent, "amount": 900})
    assert part.amount == 900 and part.status == "succeeded"
    try:
        client.v1.refunds.create({"payment_intent": payment.payment.payment_intent, "amount": 4001})
        raise AssertionError("more was refunded than was paid")
    except stripe.InvalidRequestError as error:
        assert error.code is None, error.code
    refund = client.v1.refunds.create({"payment_intent": payment.payment.payment_intent})
    assert refund.amount == 4000, "without an amount, what is left"
    try:
        client.v1.refunds.create({"payment_intent": payment.payment.payment_intent})
        raise AssertionError("a second refund was taken")
    except stripe.InvalidRequestError as error:
        assert error.code == "charge_already_refunded"
    paused = client.v1.subscriptions.update(subscription.id, {"pause_collection": {"behavior": "void"}})
    assert paused.pause_collection.behavior == "void"
    assert client.v1.subscriptions.update(subscription.id, {"pause_collection": ""}).pause_collection is None
    assert client.v1.subscriptions.cancel(subscription.id).status == "canceled"
    try:
        client.v1.customers.retrieve("cus_missing")
        raise AssertionError("a missing customer was found")
    except stripe.InvalidRequestError as error:
        assert error.code == "resource_missing"
    third = client.v1.checkout.sessions.create(params)
    assert post(third.url, "card=4000000000000259", form) == 303, "paid, and disputed at once"
    dispute = client.v1.disputes.list({"limit": 1, "expand": ["data.payment_intent"]}).data[0]
    assert dispute.status == "needs_response" and dispute.amount > 0 and dispute.evidence_details.due_by > dispute.created
    assert dispute.payment_intent.customer == customer.id, "expanded"
    bare = client.v1.disputes.retrieve(dispute.id)
    assert bare.payment_intent == dispute.payment_intent.id, "an id unless it is expanded"
    draft = client.v1.disputes.update(dispute.id, {"evidence": {"uncategorized_text": "winning_evidence"}, "submit": False})
    assert draft.status == "needs_response", "not submitted"
    assert client.v1.disputes.update(dispute.id, {"submit": True}).status == "won"
    assert client.v1.disputes.close(dispute.id).status == "lost"
    assert client.v1.subscriptions.cancel(client.v1.checkout.sessions.retrieve(third.id).subscription).status == "canceled"
    second = client.v1.checkout.sessions.create(params)
    assert post(second.url, "card=4242424242424242", form) == 303
    bought = client.v1.checkout.sessions.retrieve(second.id).subscription
    assert client.v1.customers.delete(customer.id).deleted
    assert client.v1.customers.retrieve(customer.id).deleted, "still answered, and as deleted"
    assert client.v1.subscriptions.retrieve(bought).status == "canceled", "with its customer"
    newest = client.v1.events.list({"limit": 1}).data[0]
    wanted = ["customer.subscription.deleted", "checkout.session.completed"]
    since = client.v1.events.list({"created": {"gte": newest.created}, "types": wanted, "limit": 100})
    assert since.data and {e.type for e in since.data} <= set(wanted), since
    assert not client.v1.events.list({"created": {"gte": newest.created + 1}}).data
    pages = [e.id for e in client.v1.events.list({"limit": 2}).auto_paging_iter()]
    assert len(pages) > 4 and len(pages) == len(set(pages)), "page by page, each once"
    types = {e.type for e in client.v1.events.list({"limit": 50}).data}
    assert {"checkout.session.completed", "customer.subscription.deleted", "invoice.paid"} <= types, types


def refused(error, call):
    """The error by which a call is refused."""
    try:
        call()
    except error as refusal:
        return refusal
    raise AssertionError(f"no {error.__name__}")


def check_stripe_idempotency():
    """https://docs.stripe.com/api/idempotent_requests: failures are saved as well, and what was not executed is not."""
    client = stripe.StripeClient(
        "sk_test_conformance", base_addresses={"api": ENV["STRIPE_URL"]}, max_network_retries=0
    )
    sandbox = lambda path, body: post(ENV["SANDBOX_URL"] + path, json.dumps(body))
    fault = lambda **how: sandbox(
        "/_sandbox/faults", {"provider": "stripe", "method": "POST", "path": "/v1/customers", **how}
    )
    create = lambda email, key: client.v1.customers.create({"email": email}, {"idempotency_key": key})
    there = lambda email: len(client.v1.customers.list({"email": email}).data)

    for execution, made in [("begun", 0), ("done", 1)]:
        email, key = f"{execution}@example.com", f"conformance-{execution}"
        fault(status=500, execution=execution)
        for replayed in [None, "true"]:
            error = refused(stripe.APIError, lambda: create(email, key))
            assert error.http_status == 500 and error.headers.get("idempotent-replayed") == replayed, error
        assert there(email) == made, execution
        refused(stripe.IdempotencyError, lambda: create("other@example.com", key))
        assert create(email, key + ".2").email == email, "another key is another request"
    fault(status=500)
    refused(stripe.APIError, lambda: create("late@example.com", "conformance-late"))
    assert create("late@example.com", "conformance-late").email == "late@example.com", "refused before the execution"

    params = {
        "mode": "subscription",
        "customer": client.v1.customers.list({"email": "late@example.com"}).data[0].id,
        "line_items": [{"price": "price_late", "quantity": 1}],
        "success_url": "https://example.com/ok",
    }
    buy = lambda: client.v1.checkout.sessions.create(params, {"idempotency_key": "conformance-price"})
    assert refused(stripe.InvalidRequestError, buy).code == "resource_missing"
    sandbox("/_sandbox/prices", [{"id": "price_late", "amount": 100, "currency": "usd"}])
    assert refused(stripe.InvalidRequestError, buy).headers["idempotent-replayed"] == "true", "a 400 is saved, too"
    invalid = lambda: client.v1.products.create({}, {"idempotency_key": "conformance-invalid"})
    refused(stripe.InvalidRequestError, invalid)
    assert client.v1.products.create({"name": "A"}, {"idempotency_key": "conformance-invalid"}).name == "A"

    fault(answer_delay_ms=1500)
    first = threading.Thread(target=create, args=("twice@example.com", "conformance-twice"))
    first.start()
    time.sleep(0.5)
    error = refused(stripe.StripeError, lambda: create("twice@example.com", "conformance-twice"))
    assert (error.http_status, error.json_body["error"]["code"]) == (409, "idempotency_key_in_use"), error.json_body
    first.join()
    assert there("twice@example.com") == 1


def check_stripe_refusals():
    """Parameters that do not exist, keys without permissions, refunds that are pending and that fail."""
    url = {"api": ENV["STRIPE_URL"]}
    client = stripe.StripeClient("sk_test_conformance", base_addresses=url, max_network_retries=0)
    sandbox = lambda path, body: post(ENV["SANDBOX_URL"] + path, json.dumps(body))
    unknown = lambda: client.v1.customers.create({"emial": "a@example.com"})
    assert refused(stripe.InvalidRequestError, unknown).code == "parameter_unknown"

    permissions = {"Customers": "Read", "Disputes": "Read"}
    assert sandbox("/_sandbox/restricted-keys", {"key": "rk_test_conformance", "permissions": permissions}) == 201
    restricted = stripe.StripeClient("rk_test_conformance", base_addresses=url, max_network_retries=0)
    assert restricted.v1.customers.list({"limit": 1}).data is not None
    for call, missing in [
        (lambda: restricted.v1.customers.create({"email": "a@example.com"}), "rak_customer_write"),
        (lambda: restricted.v1.refunds.list(), "rak_charge_read"),
        (lambda: restricted.v1.disputes.list({"expand": ["data.payment_intent"]}), "rak_payment_intent_read"),
    ]:
        error = refused(stripe.PermissionError, call)
        assert error.http_status == 403 and missing in str(error), error
    unknown = stripe.StripeClient("rk_test_unknown", base_addresses=url, max_network_retries=0)
    refused(stripe.AuthenticationError, lambda: unknown.v1.customers.list())

    for card, before, after in [("4000000000007726", "pending", "succeeded"), ("4000000000005126", "succeeded", "failed")]:
        customer = client.v1.customers.create({"email": f"{after}@example.com"})
        session = client.v1.checkout.sessions.create(
            {
                "mode": "subscription",
                "customer": customer.id,
                "line_items": [{"price": "price_paid", "quantity": 1}],
                "success_url": "https://example.com/ok",
            }
        )
        assert pay(session, card) == 303
        bought = client.v1.checkout.sessions.retrieve(session.id).subscription
        invoice = client.v1.invoices.list({"subscription": bought}).data[0]
        line = invoice.lines.data[0]
        item = client.v1.subscriptions.retrieve(bought)["items"].data[0]
        assert (line.period.start, line.period.end) == (item.current_period_start, item.current_period_end)
        intent = client.v1.invoice_payments.list({"invoice": invoice.id}).data[0].payment.payment_intent
        refund = client.v1.refunds.create({"payment_intent": intent})
        assert refund.status == before, refund
        again = lambda: client.v1.refunds.create({"payment_intent": intent})
        assert refused(stripe.InvalidRequestError, again).code == "charge_already_refunded"
        sandbox("/_sandbox/clock", {"advance_seconds": 13 * 3600})
        assert client.v1.refunds.retrieve(refund.id).status == after
    assert client.v1.refunds.create({"payment_intent": intent}).status == "succeeded", "what failed can be refunded again"

    assert sandbox("/_sandbox/disputes", {"customer": customer.id, "amount": 100}) == 201
    dispute = client.v1.disputes.list({"payment_intent": intent}).data[0]
    assert dispute.amount == 100 and not dispute.is_charge_refundable


def pay(session, card):
    return post(session.url, f"card={card}", "application/x-www-form-urlencoded")


def check_proration(client, product, price, moving, bad):
    """Another price in the middle of a period: charged now, on the next invoice, credited, or not at all."""
    dear = client.v1.prices.create(
        {"product": product, "unit_amount": 4500, "currency": "usd", "recurring": {"interval": "month"}}
    )
    subscription = client.v1.subscriptions.retrieve(moving)
    customer = subscription.customer
    period = subscription["items"].data[0]
    item = period.id
    amounts = lambda: sorted(i.amount_paid for i in client.v1.invoices.list({"subscription": moving}).data)

    def switch(price, **how):
        changed = client.v1.subscriptions.update(moving, {"items": [{"id": item, "price": price}], **how})
        assert changed["items"].data[0].price.id == price and changed["items"].data[0].id == item
        return changed

    kept = switch(dear.id, proration_behavior="none", metadata={"plan_before": "cheap", "plan_from": "1"}).metadata
    assert amounts() == [0, 1500], "nothing is charged"
    assert (kept["plan_before"], kept["plan_from"]) == ("cheap", "1"), kept
    # https://docs.stripe.com/metadata#delete-metadata
    kept = switch(price, proration_behavior="none", metadata={"plan_before": "", "other": "there"}).metadata
    assert "plan_before" not in kept and (kept["plan_from"], kept["other"]) == ("1", "there"), kept
    switch(dear.id, proration_behavior="always_invoice", payment_behavior="error_if_incomplete", metadata={"plan": "dear"})
    # One day of the month has passed.
    days = (period.current_period_end - period.current_period_start) // (24 * 3600)
    difference = (4500 - 1500) * (days - 1) / days
    charged = amounts()[-1]
    assert len(amounts()) == 3 and abs(charged - difference) <= 1, amounts()
    switch(dear.id, proration_behavior="always_invoice", payment_behavior="error_if_incomplete")
    assert len(amounts()) == 3, "the same price again charges nothing"
    newest = client.v1.invoices.list({"subscription": moving}).data[0]
    lines = [line.amount for line in newest.lines.data]
    assert len(lines) == 2 and lines[0] < 0 < lines[1] and sum(lines) == newest.total == charged, lines
    switch(price, proration_behavior="always_invoice")
    balance = client.v1.customers.retrieve(customer).balance
    assert abs(balance + difference) <= 1, "what was paid too much is credit"
    owing = client.v1.subscriptions.retrieve(bad)
    try:
        client.v1.subscriptions.update(
            bad,
            {
                "items": [{"id": owing["items"].data[0].id, "price": dear.id}],
                "proration_behavior": "always_invoice",
                "payment_behavior": "error_if_incomplete",
            },
        )
        raise AssertionError("a declined card paid")
    except stripe.CardError as error:
        assert error.code == "card_declined" and error.http_status == 402
    assert client.v1.subscriptions.retrieve(bad)["items"].data[0].price.id == price, "and nothing was changed"


def check_stripe_clock():
    """A trial that ends, a month that passes, and a card that is declined when it is charged."""
    client = stripe.StripeClient("sk_test_conformance", base_addresses={"api": ENV["STRIPE_URL"]})
    product = client.v1.products.create({"name": "Judged plan"})
    price = client.v1.prices.create(
        {"product": product.id, "unit_amount": 1500, "currency": "usd", "recurring": {"interval": "month"}}
    )
    assert price.id in [p.id for p in client.v1.prices.list({"product": product.id}).data]
    start = int(time.time())
    clock = client.v1.test_helpers.test_clocks.create({"frozen_time": start, "name": "conformance"})

    def advance(days):
        client.v1.test_helpers.test_clocks.advance(clock.id, {"frozen_time": start + days * 24 * 3600})
        ready = lambda: client.v1.test_helpers.test_clocks.retrieve(clock.id).status == "ready"
        eventually("the clock is ready", ready)

    def subscribe(email, card):
        customer = client.v1.customers.create({"email": email, "test_clock": clock.id})
        session = client.v1.checkout.sessions.create(
            {
                "mode": "subscription",
                "customer": customer.id,
                "line_items": [{"price": price.id, "quantity": 1}],
                "success_url": "https://example.com/ok",
                "subscription_data": {"trial_period_days": 14},
            }
        )
        assert pay(session, card) == 303
        return client.v1.checkout.sessions.retrieve(session.id).subscription

    good, bad = subscribe("good@example.com", "4242424242424242"), subscribe("bad@example.com", "4000000000000341")
    moving = subscribe("moving@example.com", "4242424242424242")
    paid = lambda id: sorted(i.amount_paid for i in client.v1.invoices.list({"subscription": id}).data)
    status = lambda id: client.v1.subscriptions.retrieve(id).status
    advance(13)
    assert (status(good), paid(good)) == ("trialing", [0])
    advance(15)
    assert (status(good), paid(good)) == ("active", [0, 1500])
    assert (status(bad), paid(bad)) == ("past_due", [0, 0])
    check_proration(client, product.id, price.id, moving, bad)
    # The customer enters another card in the portal, and open invoices are collected.
    customer = client.v1.subscriptions.retrieve(bad).customer
    portal = client.v1.billing_portal.sessions.create({"customer": customer, "return_url": "https://example.com/back"})
    assert portal.object == "billing_portal.session" and portal.customer == customer
    page = html.unescape(urllib.request.urlopen(portal.url).read().decode())
    assert bad in page and good not in page and "https://example.com/back" in page, page
    form = urllib.parse.urlencode({"subscription": bad, "action": "card"}).encode()
    urllib.request.urlopen(portal.url, form)
    assert (status(bad), paid(bad)) == ("active", [0, 1500])
    try:
        client.v1.billing_portal.sessions.create({"customer": "cus_unknown"})
        raise AssertionError("a portal session for an unknown customer")
    except stripe.InvalidRequestError as error:
        assert error.code == "resource_missing", error
    advance(45)
    assert (status(good), paid(good)) == ("active", [0, 1500, 1500])
    try:
        client.v1.test_helpers.test_clocks.advance(clock.id, {"frozen_time": start})
        raise AssertionError("a clock went backwards")
    except stripe.InvalidRequestError:
        pass
    types = [e.type for e in client.v1.events.list({"limit": 100}).data]
    assert "invoice.payment_failed" in types and "test_helpers.test_clock.ready" in types, types


def check_webhook_endpoints():
    """An endpoint that is registered by the API gets the events that it asked for, signed with its own secret."""
    server, got = receiver()
    client = stripe.StripeClient("sk_test_conformance", base_addresses={"api": ENV["STRIPE_URL"]})
    url = f"http://127.0.0.1:{server.server_port}/"
    endpoint = client.v1.webhook_endpoints.create({"url": url, "enabled_events": ["checkout.session.expired"]})
    customer = client.v1.customers.create({"email": "endpoint@example.com"})
    session = client.v1.checkout.sessions.create(
        {
            "mode": "subscription",
            "customer": customer.id,
            "line_items": [{"price": "price_paid", "quantity": 1}],
            "success_url": "https://example.com/ok",
        }
    )
    client.v1.checkout.sessions.expire(session.id)
    eventually("the event arrives", lambda: got)
    event = stripe.Webhook.construct_event(*got[0], endpoint.secret)
    assert event.type == "checkout.session.expired" and event.data.object.id == session.id
    assert client.v1.webhook_endpoints.list().data[0].url == url
    assert client.v1.webhook_endpoints.delete(endpoint.id).deleted
    server.shutdown()
    assert len(got) == 1, got


def check_webhooks():
    """The sandbox delivered here what the SDK must take; the test's receiver wrote it down."""
    with open(ENV["DELIVERIES"]) as file:
        deliveries = [json.loads(line) for line in file]
    assert deliveries
    for delivery in deliveries:
        event = stripe.Webhook.construct_event(delivery["body"], delivery["signature"], ENV["STRIPE_WEBHOOK_SECRET"])
        assert event.id.startswith("evt_")
        try:
            stripe.Webhook.construct_event(delivery["body"] + " ", delivery["signature"], ENV["STRIPE_WEBHOOK_SECRET"])
            raise AssertionError("a changed body was taken")
        except stripe.SignatureVerificationError:
            pass


def eventually(what, check):
    for _ in range(100):
        if check():
            return
        time.sleep(0.1)
    raise AssertionError(what)


def check_pinecone():
    client = pinecone.Pinecone(api_key="pc-conformance", host=ENV["PINECONE_URL"])
    described = client.describe_index("multi-tenant-rag")
    assert described.dimension == 1536 and described.metric == "cosine"
    index = client.Index(host=described.host)
    index.create_namespace(name="conformance")
    try:
        index.create_namespace(name="conformance")
        raise AssertionError("a namespace was made twice")
    except pinecone.PineconeException as error:
        assert getattr(error, "status", None) in (409, None) or "409" in str(error), error
    assert index.describe_namespace(namespace="conformance").name == "conformance"
    assert "conformance" in [n.name for page in index.list_namespaces() for n in page.namespaces]
    # Pages, and what they lack when a full account refuses.
    for i in range(4):
        index.create_namespace(name=f"page-{i}")
    pages = [[n.name for n in page.namespaces] for page in index.list_namespaces(limit=2)]
    assert len(pages) >= 3 and all(len(page) <= 2 for page in pages), pages
    names = [name for page in pages for name in page]
    assert len(names) == len(set(names)) and {f"page-{i}" for i in range(4)} <= set(names), names
    for i in range(4):
        index.delete_namespace(namespace=f"page-{i}")
    unit = lambda i: [1.0 if n == i else 0.0 for n in range(1536)]
    index.upsert(vectors=[{"id": f"v{i}", "values": unit(i), "metadata": {"n": str(i)}} for i in range(3)], namespace="conformance")
    found = index.query(vector=unit(1), top_k=2, namespace="conformance", include_metadata=True)
    assert found.matches[0].id == "v1" and found.matches[0].metadata["n"] == "1", found
    assert abs(found.matches[0].score - 1.0) < 1e-5
    assert set(index.fetch(ids=["v0", "v2"], namespace="conformance").vectors) == {"v0", "v2"}
    assert {v.id for page in index.list(namespace="conformance") for v in page.vectors} == {"v0", "v1", "v2"}
    pages = [[v.id for v in page.vectors] for page in index.list(namespace="conformance", prefix="v", limit=2)]
    assert pages == [["v0", "v1"], ["v2"]], pages
    index.delete(ids=["v0"], namespace="conformance")
    assert "v0" not in index.fetch(ids=["v0"], namespace="conformance").vectors
    assert index.describe_index_stats().namespaces["conformance"].vector_count == 2
    index.delete_namespace(namespace="conformance")
    try:
        index.describe_namespace(namespace="conformance")
        raise AssertionError("a deleted namespace was found")
    except pinecone.PineconeException:
        pass


def check_pinecone_anew():
    client = pinecone.Pinecone(api_key="pc-conformance", host=ENV["PINECONE_URL"])
    before = client.describe_index("multi-tenant-rag-eu")
    assert before.host != client.describe_index("multi-tenant-rag").host, "each index has a host of its own"
    client.Index(host=before.host).create_namespace(name="lost")
    assert post(ENV["SANDBOX_URL"] + "/_sandbox/indexes", '{"index": "multi-tenant-rag-eu"}') == 204
    after = client.describe_index("multi-tenant-rag-eu")
    assert after.name == before.name and after.host != before.host, "the same name, and another host"
    assert [n.name for page in client.Index(host=after.host).list_namespaces() for n in page.namespaces] == []
    try:
        client.Index(host=before.host).describe_namespace(namespace="lost")
        raise AssertionError("the index that was deleted answers")
    except pinecone.PineconeException:
        pass


def check_openai():
    client = openai.OpenAI(api_key="sk-conformance", base_url=ENV["OPENAI_BASE_URL"])
    texts = ["What is RAG?", "RAG means retrieval-augmented generation", "the weather in Turin"]
    # The SDK asks for base64 unless told otherwise.
    vectors = [d.embedding for d in client.embeddings.create(model="text-embedding-3-small", input=texts).data]
    floats = client.embeddings.create(model="text-embedding-3-small", input=texts, encoding_format="float")
    assert all(abs(a - b) < 1e-6 for a, b in zip(vectors[0], floats.data[0].embedding))
    dot = lambda a, b: sum(x * y for x, y in zip(a, b))
    assert len(vectors[0]) == 1536 and abs(dot(vectors[0], vectors[0]) - 1) < 1e-4
    assert dot(vectors[0], vectors[1]) > dot(vectors[0], vectors[2])
    answer = client.chat.completions.create(
        model="gpt-4o-mini",
        messages=[{"role": "user", "content": "Passages:\n[1] It rains.\n[2] RAG is retrieval.\n\nQuestion: What is RAG?"}],
    )
    assert "[2]" in answer.choices[0].message.content and answer.usage.total_tokens > 0
    pieces = list(
        client.chat.completions.create(
            model="gpt-4o-mini",
            messages=[{"role": "user", "content": "Passages:\n[1] It rains.\n[2] RAG is retrieval.\n\nQuestion: What is RAG?"}],
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    text = "".join(p.choices[0].delta.content or "" for p in pieces if p.choices)
    assert text == answer.choices[0].message.content and len(pieces) > 4, text
    assert pieces[-1].usage.total_tokens == answer.usage.total_tokens and not pieces[-1].choices
    assert pieces[-2].choices[0].finish_reason == "stop"
    try:
        client.embeddings.create(model="text-embedding-3-small", input=[])
        raise AssertionError("an empty input was taken")
    except openai.BadRequestError:
        pass


CHECKS = [
    check_stripe_accounts,
    check_stripe_endings,
    check_stripe,
    check_stripe_clock,
    check_webhook_endpoints,
    check_webhooks,
    check_stripe_idempotency,
    check_stripe_refusals,
    check_pinecone,
    check_pinecone_anew,
    check_openai,
]
for check in CHECKS:
    check()
    print(f"{check.__name__}: passed")
