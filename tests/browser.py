"""A headless Chromium for tests, controlled over its debugging pipe with the standard library alone."""

import json
import os
import shutil
import subprocess
from itertools import count

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


class Browser:
    """A browser with one page; ``events`` holds its log entries, exceptions and network requests."""

    def __init__(self, profile):
        binary = next((path for name in NAMES if (path := shutil.which(name))), None)
        if binary is None:
            pytest.skip("no chromium here (Debian: apt-get install chromium)")
        to_browser, write = os.pipe()
        read, from_browser = os.pipe()
        self.files = os.fdopen(write, "wb"), os.fdopen(read, "rb")
        # the browser reads file descriptor 3 and writes 4
        redirect = f'exec 3<&{to_browser} 4>&{from_browser}; exec "$@"'
        arguments = [
            *("--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe"),
            *(
                "--hide-scrollbars",
                "--no-first-run",
                "--disable-dev-shm-usage",
                "--disable-background-networking",
            ),
            *("--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={profile}", "about:blank"),
        ]
        self.process = subprocess.Popen(
            ["bash", "-c", redirect, "browser", binary, *arguments],
            pass_fds=(to_browser, from_browser),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self.numbers, self.events, self.session = count(1), [], None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method, **parameters):
        """Send one command and wait for its answer."""
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        self.files[0].write(json.dumps(message).encode() + b"\0")
        self.files[0].flush()
        while (answer := self._receive()).get("id") != number:
            self.events.append(answer)
        assert "error" not in answer, answer["error"]
        return answer["result"]

    def open(self, path, width, height=900):
        """Open a file in a window of that width, and wait until it is loaded."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        self.events.clear()
        self.call("Page.navigate", url=path.resolve().as_uri())
        while not any(e.get("method") == "Page.loadEventFired" for e in self.events):
            self.events.append(self._receive())

    def evaluate(self, expression):
        """Return the value of a JavaScript expression in the page."""
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def settle(self):
        """Wait until the page is drawn and scroll events are handled."""
        frames = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
        self.call("Runtime.evaluate", expression=frames, awaitPromise=True)

    def of(self, *methods):
        """Return the parameters of the events of some methods since the page was opened."""
        return [e["params"] for e in self.events if e.get("method") in methods]

    def close(self):
        """End the browser."""
        self.session = None
        self.call("Browser.close")
        self.process.wait(timeout=20)
        for file in self.files:
            file.close()

    def _receive(self):
        message = bytearray()
        while (byte := self.files[1].read(1)) != b"\0":
            assert byte, "the browser has gone"
            message += byte
        return json.loads(message)
