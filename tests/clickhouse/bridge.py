"""Serves ClickHouse's engine over the part of ClickHouse's HTTP interface that the ledger uses.

    bridge.py PORT FOLDER USER PASSWORD

The engine is the real one, in this process (chdb-core); users are not, so the one user and password are checked here.
POST /-/fault with {"skip": N, "do": "refuse" | "lose" | "hang"} arms a fault for one of the next requests: it is not done,
or done without an answer, or neither. GET /-/requests says how many requests there were.
"""

import http.server
import json
import os
import re
import sys
import tempfile
import threading
import time
import urllib.parse

from chdb import session

PORT, FOLDER, USER, PASSWORD = int(sys.argv[1]), *sys.argv[2:5]
# Parameters of the interface that are no settings.
NO_SETTINGS = {"query", "database", "default_format", "query_id", "compress", "decompress"}
STATUS = {"516": 403, "81": 404, "60": 404, "62": 400, "497": 403}

engine = session.Session(FOLDER)
lock = threading.Lock()
state = {"requests": 0, "fault": None, "set": set()}


def quoted(text):
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def run(parameters, body):
    """The answer of the engine, as bytes. One question at a time: it has one session."""
    query = parameters.get("query", "")
    rows = None
    if query:
        rows = body
    else:
        query = body.decode()
    with lock:
        engine.query(f"USE `{parameters.get('database', 'default')}`")
        for name in state["set"]:
            engine.query(f"SET {name} = DEFAULT")
        settings = {name: value for name, value in parameters.items() if name not in NO_SETTINGS}
        state["set"] = set(settings)
        for name, value in settings.items():
            engine.query(f"SET {name} = {quoted(value)}")
        insert = re.fullmatch(r"(?s)\s*INSERT INTO (\S+?)\s*\((.*)\) FORMAT (\w+)\s*", query) if rows else None
        if insert is None:
            answer = engine.query(query, parameters.get("default_format", "TabSeparated"))
            return answer.bytes() if answer is not None else b""
        table, columns, form = insert.groups()
        with tempfile.NamedTemporaryFile(dir=FOLDER, delete=False) as file:
            file.write(rows)
        try:
            source = f"file({quoted(file.name)}, {quoted(form)})"
            engine.query(f"INSERT INTO {table} ({columns}) SELECT {columns} FROM {source}")
        finally:
            os.unlink(file.name)
        return b""


class Bridge(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Headers and body are written apart. Without this, the body waits for 40 ms until the headers are acknowledged.
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def body(self):
        if self.headers.get("transfer-encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("content-length", 0)))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def answer(self, status, body, code=None):
        self.send_response(status)
        if code:
            self.send_header("X-ClickHouse-Exception-Code", code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def fault(self):
        """What happens to this request."""
        with lock:
            state["requests"] += 1
            armed = state["fault"]
            if armed is None:
                return None
            armed["skip"] -= 1
            if armed["skip"] >= 0:
                return None
            state["fault"] = None
            return armed["do"]

    def do_GET(self):
        with lock:
            self.answer(200, str(state["requests"]).encode())

    def do_POST(self):
        body = self.body()
        url = urllib.parse.urlsplit(self.path)
        if url.path == "/-/fault":
            with lock:
                state["fault"] = json.loads(body)
            return self.answer(200, b"")
        fault = self.fault()
        if fault == "hang":
            time.sleep(3600)
        if fault == "refuse":
            self.close_connection = True
            return None
        shown = [self.headers.get(name, "") for name in ("x-clickhouse-user", "x-clickhouse-key")]
        if shown != [USER, PASSWORD]:
            said = f"Code: 516. DB::Exception: {shown[0]}: Authentication failed: password is incorrect, or there is no user with such name. (AUTHENTICATION_FAILED)"
            return self.answer(403, said.encode(), "516")
        parameters = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
        try:
            said = run(parameters, body)
        except Exception as error:
            code = (re.search(r"Code: (\d+)", str(error)) or ["", "1002"])[1]
            return self.answer(STATUS.get(code, 500), str(error).encode(), code)
        if fault == "lose":
            self.close_connection = True
            return None
        return self.answer(200, said)


server = http.server.ThreadingHTTPServer(("127.0.0.1", PORT), Bridge)
print("listening", flush=True)
server.serve_forever()
