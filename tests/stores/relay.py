"""A relay in front of an HTTP server that answers some requests with errors, and some late.

python -m tests.stores.relay PORT BACKEND [STATUS:EVERY ...] [late:EVERY]

`503:7` answers every seventh request with 503, `500:1` every one; `late:50` lets every fiftieth wait.
"""

from __future__ import annotations

import itertools
import sys
import time
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_LATE_S = 5.0  # longer than a request may be silent


class Relay(BaseHTTPRequestHandler):
    """Relays one connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # see at_once.py
    backend: int
    faults: dict[str, int]  # status or `late` → every how many requests
    count = itertools.count(1)

    def relay(self) -> None:
        body = self._read_body()
        number = next(self.count)
        for kind, every in self.faults.items():
            if number % every == 0 and kind != "late":
                self._answer(int(kind), {}, b"")
                return
            if number % every == 0:
                time.sleep(_LATE_S)
        server = HTTPConnection("127.0.0.1", self.backend)
        kept = {key: value for key, value in self.headers.items() if key.lower() not in ("transfer-encoding", "expect")}
        server.request(self.command, self.path, body, {**kept, "Content-Length": str(len(body))})
        answer = server.getresponse()
        self._answer(answer.status, dict(answer.getheaders()), answer.read())
        server.close()

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = relay

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response_only(status)
        if self.command != "HEAD":
            headers = {**headers, "Content-Length": str(len(body))}
        for key, value in headers.items():
            if key.lower() not in ("transfer-encoding", "connection"):
                self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


if __name__ == "__main__":
    Relay.backend = int(sys.argv[2])
    Relay.faults = {kind: int(every) for kind, _, every in (fault.partition(":") for fault in sys.argv[3:])}
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Relay).serve_forever()
