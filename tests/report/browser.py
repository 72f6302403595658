"""Drives a headless Chromium over its DevTools pipe: window sizes, measurements and screenshots."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
)
# Scrolls to every figure of a report, which is drawn when it comes near the window.
DRAW_ALL = """(async () => {
  for (const plot of document.querySelectorAll(".plot")) {
    plot.scrollIntoView({behavior: "instant"});
    while (!plot.querySelector(".main-svg")) await new Promise((done) => setTimeout(done, 20));
  }
})()"""


class Browser:
    """One tab of a browser that reads commands from a pipe and answers on another (messages end with a NUL byte).

    Parameters
    ----------
    requests, replies
        File descriptors: the end of one pipe to write to and of the other to read from.
    """

    def __init__(self, requests: int, replies: int) -> None:
        self._requests, self._replies = requests, replies
        self._received, self._id, self._session = b"", 0, None
        self.events: list[dict[str, Any]] = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.send("Log.enable")
        self.send("Runtime.enable")

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Sends a DevTools command and returns its result; what else is received meanwhile is added to `events`."""
        self._id += 1
        message = {"id": self._id, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._requests, json.dumps(message).encode() + b"\0")
        while (reply := self._receive()).get("id") != self._id:
            self.events.append(reply)
        assert "error" not in reply, reply["error"]
        return dict(reply["result"])

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._received:
            received = os.read(self._replies, 1 << 20)
            assert received, "the browser has ended"
            self._received += received
        message, self._received = self._received.split(b"\0", 1)
        return dict(json.loads(message))

    def resize(self, width: int, height: int) -> None:
        """Sets the window's size in CSS pixels (a real window is never narrower than 500)."""
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def open(self, page: Path) -> None:
        """Loads a local page and waits for its `load` event."""
        self.send("Page.navigate", url=page.as_uri())
        self.evaluate("new Promise(done => document.readyState === 'complete' ? done() : onload = done)")

    def evaluate(self, expression: str) -> Any:
        """Value of a JavaScript expression in the page; a promise is awaited."""
        result = self.send("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def complaints(self) -> list[dict[str, Any]]:
        """Exceptions, console messages and violations of the policy of all pages so far."""
        self.evaluate("null")
        kinds = ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown")
        return [event["params"] for event in self.events if event["method"] in kinds]

    def screenshot(self, path: Path) -> None:
        """Writes what the window shows as a PNG file."""
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot")["data"]))


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """A running Chromium with an empty profile, which ends with the block."""
    assert CHROMIUM is not None
    ends = [end for pipe in (os.pipe(), os.pipe()) for end in pipe]
    # The browser expects the pipes as descriptors 3 and 4: move ours out of the way first.
    theirs_in, requests, replies, theirs_out = (fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends)
    for end in ends:
        os.close(end)
    quiet = (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0)
    process = os.posix_spawn(
        CHROMIUM,
        [CHROMIUM, *OPTIONS, f"--user-data-dir={profile}"],
        os.environ,
        file_actions=[quiet, (os.POSIX_SPAWN_DUP2, theirs_in, 3), (os.POSIX_SPAWN_DUP2, theirs_out, 4)],
    )
    os.close(theirs_in)
    os.close(theirs_out)
    try:
        yield Browser(requests, replies)
    finally:
        os.kill(process, signal.SIGTERM)
        os.waitpid(process, 0)
        os.close(requests)
        os.close(replies)
