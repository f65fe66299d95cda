"""Headless Chromium over its debugging pipe, with nothing but the standard library.

As a command it makes a small picture: ``python tests/browser.py report.html picture.png [width [height]]``.
"""

import base64
import contextlib
import io
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_SECONDS = 20


class Page:
    """A page in a browser, and the events it has sent so far."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands, self._answers = commands, answers
        self._rest, self._last, self._session = b"", 0, {}
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = {"sessionId": self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]}
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the DevTools protocol and wait for its answer."""
        self._last += 1
        message = {"id": self._last, "method": method, "params": parameters, **self._session}
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._last:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def open(self, url: str, width: int = 1280, height: int = 900) -> None:
        """Show an address in a window of that size and wait until all of it has loaded."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        self.events.clear()
        self.call("Page.navigate", url=url)
        while not self.named("Page.loadEventFired"):
            self.events.append(self._next())

    def named(self, method: str) -> list[dict[str, Any]]:
        """The parameters of the events of that name."""
        return [event["params"] for event in self.events if event.get("method") == method]

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def picture(self, whole: bool = False) -> bytes:
        """What the window shows as PNG, or the whole page."""
        return base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=whole)["data"])

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            assert select.select([self._answers], [], [], _SECONDS)[0], "Chromium does not answer"
            read = os.read(self._answers, 1 << 20)
            assert read, "Chromium has ended"
            self._rest += read
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)


@contextlib.contextmanager
def browser() -> Iterator[Page]:
    """A page of a Chromium that is started for it; an error where there is none."""
    program = next(filter(None, map(shutil.which, _NAMES)), None)
    if program is None:
        raise RuntimeError("the report is tested in Chromium, which is not installed: apt-get install chromium")
    commands, answers = os.pipe(), os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        flags = ["--headless=new", "--remote-debugging-pipe", f"--user-data-dir={profile}", "--disable-gpu"]
        flags += ["--no-first-run", "--disable-background-networking", "--disable-dev-shm-usage", "--hide-scrollbars"]
        flags += ["--no-sandbox"] if os.geteuid() == 0 else []  # as root Chromium refuses to start otherwise
        # Chromium reads commands from file 3 and answers on file 4.
        script = f'exec "$@" 3<&{commands[0]} 4>&{answers[1]}'
        process = subprocess.Popen(
            ["bash", "-c", script, "bash", program, *flags],
            pass_fds=(commands[0], answers[1]),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(commands[0])
        os.close(answers[1])
        try:
            yield Page(commands[1], answers[0])
        finally:
            os.close(commands[1])  # the end of its commands ends Chromium
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_SECONDS)
            process.kill()
            os.close(answers[0])


if __name__ == "__main__":
    from PIL import Image  # comes with matplotlib

    source, target = sys.argv[1:3]
    width, height = int(sys.argv[3]) if sys.argv[3:] else 1200, int(sys.argv[4]) if sys.argv[4:] else None
    with browser() as shown:
        shown.open(Path(source).resolve().as_uri(), width, height or 900)
        picture = Image.open(io.BytesIO(shown.picture(whole=height is None))).convert("RGB")
    picture.quantize(64, dither=Image.Dither.NONE).save(target, optimize=True)
