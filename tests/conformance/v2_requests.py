"""Stripe's SDK sends the requests of API v2 that the product sends: the same method, path and parameters."""

import json
import sys
import urllib.parse

import stripe


class Sent(Exception):
    pass


class Recorder(stripe.RequestsClient):
    def request(self, method, url, headers, post_data=None):
        raise Sent(method.upper(), url)


api = stripe.StripeClient("sk_test_v2", base_addresses={"api": "https://stripe.test"}, max_network_retries=0,
                          http_client=Recorder())


def sent(call):
    try:
        call()
    except Sent as request:
        method, url = request.args
        address = urllib.parse.urlsplit(url)
        return method, address.path, sorted(urllib.parse.parse_qsl(address.query))
    raise AssertionError("the SDK sent nothing")


def by_the_sdk(path, query):
    events = api.v2.core.events
    if path == "/v2/core/events":
        types = [value for name, value in query if name.startswith("types[")]
        return sent(lambda: events.list({"types": types, "limit": int(dict(query)["limit"])}))
    assert path.startswith("/v2/core/events/"), f"this judge does not know {path}"
    return sent(lambda: events.retrieve(path.removeprefix("/v2/core/events/")))


with open(sys.argv[1]) as file:
    requests = json.load(file)
for request in requests:
    query = sorted(urllib.parse.parse_qsl(request["query"] or ""))
    ours = (request["method"], request["path"], query)
    theirs = by_the_sdk(request["path"], query)
    assert ours == theirs, (ours, theirs)
print(f"{len(requests)} requests: passed")
