"""Debian's Chromium without a screen: what a reader sees and presses."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import httpx
import pytest
from websockets.sync.client import ClientConnection, connect

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


class Page:
    """One tab."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._ids = count(1)
        self.call("Page.enable")

    def call(self, method: str, **params: object) -> dict:
        """One command of the protocol, and its answer."""
        number = next(self._ids)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while (answer := json.loads(self._socket.recv(timeout=30))).get("id") != number:
            pass
        assert "error" not in answer, answer
        return answer["result"]

    def _loaded(self) -> None:
        while json.loads(self._socket.recv(timeout=30)).get("method") != "Page.loadEventFired":
            pass

    def open(self, url: str) -> None:
        """Go there, and wait for it."""
        self.call("Page.navigate", url=url)
        self._loaded()

    def press(self, selector: str) -> None:
        """Click on an element that leads to another page."""
        self.run(f"document.querySelector({json.dumps(selector)}).click()")
        self._loaded()

    def run(self, script: str) -> object:
        """Value of a line of JavaScript."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        return found["result"].get("value")

    def resize(self, width: int) -> None:
        """Show the page as a screen of this width would."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=900, deviceScaleFactor=1, mobile=width < 500,
        )  # fmt: skip


@contextmanager
def open_page(folder: Path) -> Iterator[Page]:
    """A tab of a browser of its own; skips the test where there is none."""
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"]
    command += ["--remote-debugging-port=0", f"--user-data-dir={folder}", "about:blank"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as browser:
        try:
            assert browser.stderr
            address = next(
                found[1] for line in browser.stderr if (found := re.search(r"ws://([^/]+)/", line))
            )
            tabs = httpx.get(f"http://{address}/json").json()
            url = next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
            with connect(url, max_size=None) as socket:
                yield Page(socket)
        finally:
            browser.terminate()
            browser.communicate(timeout=30)
