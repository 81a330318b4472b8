"""The official SDK of CloudEvents reports usage in each way that it can write an event, and the spec's own JSON schema judges what
web accepts."""

import json
import os
import pathlib
import urllib.request
from datetime import datetime, timezone

import fastjsonschema
from cloudevents.core.bindings.http import to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent

URL, TOKEN, TENANT = (os.environ[name] for name in ("WEB_URL", "USAGE_EVENTS_TOKEN", "TENANT_ID"))
SCHEMA = json.loads((pathlib.Path(__file__).parent.parent / "fixtures/cloudevents/cloudevents.json").read_text())
is_event = fastjsonschema.compile(SCHEMA, use_formats=False)


def report(headers, body):
    request = urllib.request.Request(URL + "/v1/usage/events", data=body, headers={**headers, "Authorization": "Bearer " + TOKEN})
    with urllib.request.urlopen(request, timeout=60) as response:
        return [told["state"] for told in json.load(response)["events"]]


def event(id, **more):
    attributes = {
        "type": "dev.tenant-operator.usage.v1", "source": "/services/sdk", "id": id, "subject": TENANT,
        "time": datetime.now(timezone.utc), "datacontenttype": "application/json", **more,
    }
    return CloudEvent(attributes, {"queries": 1, "promptTokens": 7})


def each_way_names_the_same_event():
    # What needs quotes, percent signs or more than ASCII.
    told = event("ä %25 \"b\" \\ €", comexample="of your own")
    structured, binary = to_structured_event(told), to_binary_event(told)
    is_event(json.loads(structured.body))
    assert structured.headers["content-type"].startswith("application/cloudevents+json"), structured.headers
    assert report(structured.headers, structured.body) == ["accepted"]
    assert report(binary.headers, binary.body) == ["duplicate"]
    batch = b"[" + structured.body + b"," + to_structured_event(event("other")).body + b"]"
    assert report({"Content-Type": "application/cloudevents-batch+json"}, batch) == ["duplicate", "accepted"]
    lines = b"\n".join([structured.body, to_structured_event(event("third")).body])
    assert report({"Content-Type": "application/x-ndjson"}, lines) == ["duplicate", "accepted"]


def what_is_accepted_is_an_event_by_the_schema():
    whole = json.loads(to_structured_event(event("whole")).body)
    changed = [whole]
    for attribute in [*SCHEMA["properties"], "comexample"]:
        changed.append({name: value for name, value in whole.items() if name != attribute})
        changed += [{**whole, attribute: value} for value in (None, "", 7, 1.5, True, [], {}, "x")]
    events = [{**one, "id": f"{one['id']} {i}"} if one.get("id") == "whole" else one for i, one in enumerate(changed)]
    states = report({"Content-Type": "application/cloudevents-batch+json"}, json.dumps(events).encode())
    accepted = 0
    for one, state in zip(events, states, strict=True):
        if state != "refused":
            is_event(one)
            accepted += 1
    assert 10 < accepted < len(events), (accepted, len(events))


for check in [each_way_names_the_same_event, what_is_accepted_is_an_event_by_the_schema]:
    check()
    print(f"{check.__name__}: passed")
