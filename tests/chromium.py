"""A headless Chromium driven by keys over its debugging pipe: what an operator does and sees."""

import base64
import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.browser import CHROMIUM

PATIENCE_S = 200  # starting actors takes long on a busy machine


class Tab:
    """One tab."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._out = os.fdopen(to_browser, "wb", buffering=0)
        self._in = os.fdopen(from_browser, "rb", buffering=0)
        self._count = 0
        self._rest = b""
        self._session = ""
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        attached = self._ask("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        self._ask("Page.enable")

    def close(self) -> None:
        """Let go of the pipes."""
        self._out.close()
        self._in.close()

    def open(self, url: str) -> None:
        """Go to an address and wait until it is loaded."""
        self._ask("Page.navigate", url=url)
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def wait(self, condition: str) -> None:
        """Wait until an expression is true."""
        until = time.monotonic() + PATIENCE_S
        while not self.run(condition):
            assert time.monotonic() < until, (condition, self.run("document.body.innerText"))
            time.sleep(0.1)

    def run(self, expression: str) -> Any:
        """Value of an expression in the page; None while a page is being changed."""
        answer = self._ask("Runtime.evaluate", expression=expression, returnByValue=True)
        return answer.get("result", {}).get("value")

    def press(self, key: str) -> None:
        """A key: Tab or Enter."""
        code = {"Tab": 9, "Enter": 13}[key]
        text = {"text": "\r"} if key == "Enter" else {}
        same = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self._ask("Input.dispatchKeyEvent", type="keyDown", **same, **text)
        self._ask("Input.dispatchKeyEvent", type="keyUp", **same)

    def type(self, text: str) -> None:
        """Text into what has the focus."""
        self._ask("Input.insertText", text=text)

    def size(self, width: int, height: int) -> None:
        """The window's size."""
        shape = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self._ask("Emulation.setDeviceMetricsOverride", **shape)

    def picture(self, path: Path) -> None:
        """A screenshot, as PNG."""
        path.write_bytes(base64.b64decode(self._ask("Page.captureScreenshot")["data"]))

    def _ask(self, method: str, **params: Any) -> dict[str, Any]:
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        self._out.write(json.dumps(message).encode() + b"\0")
        while True:
            head, end, rest = self._rest.partition(b"\0")
            if not end:
                more = self._in.read(65_536)
                assert more, "Chromium has gone"
                self._rest += more
                continue
            self._rest = rest
            answer = json.loads(head)
            if answer.get("id") == self._count:
                return dict(answer.get("result", {}))


@contextmanager
def open_tab() -> Iterator[Tab]:
    """A browser with a profile of its own; needs CHROMIUM."""
    read_theirs, write_ours = os.pipe()
    read_ours, write_theirs = os.pipe()
    with TemporaryDirectory(prefix="reco-chromium-", ignore_cleanup_errors=True) as profile:
        # Chromium reads commands from descriptor 3 and answers on 4.
        command = (
            f'exec 3<&{read_theirs} 4>&{write_theirs}; exec "{CHROMIUM}" --headless=new '
            f"--no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run "
            f'--user-data-dir="{profile}" --remote-debugging-pipe'
        )
        process = subprocess.Popen(
            ["/bin/bash", "-c", command],
            pass_fds=(read_theirs, write_theirs),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read_theirs)
        os.close(write_theirs)
        tab = Tab(write_ours, read_ours)
        try:
            yield tab
        finally:
            tab.close()
            process.terminate()
            process.wait(20)
