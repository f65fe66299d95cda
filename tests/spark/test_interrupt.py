"""A signal ends a run with one line, whatever it comes upon, and nothing of the run lives on."""

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT, SAMPLE

ON_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
"""Makes its standard input the terminal that Ctrl-C comes from, and becomes another program."""

JAVA_STARTS = "Picked up JAVA|incubator modules|log level"
"""What Java tells whenever it starts."""
STAGE = r"\w+: .*, \d+\.\d s$"
"""The line of a stage that was done before the signal came."""


class Run:
    """A job in plain Python, as somebody starts it on a terminal of its own."""

    def __init__(self, *arguments: object) -> None:
        self._terminal, side = pty.openpty()
        command = [sys.executable, "-c", ON_TERMINAL, str(ROOT / "jobs" / "curate.py"), *map(str, arguments)]
        self.process = subprocess.Popen(command, stdin=side, stdout=side, stderr=side, start_new_session=True)
        os.close(side)
        self.shown = ""

    def until(self, words: str) -> None:
        """Read until something is shown that has the words."""
        while not re.search(words, self.shown):
            assert self._read(), self.shown

    def to_the_end(self) -> str:
        """All that is shown from here on, until nobody is left who could show something."""
        begins = len(self.shown)
        while self._read():
            pass
        return self.shown[begins:]

    def _read(self) -> bool:
        ready, _, _ = select.select([self._terminal], [], [], 120)
        assert ready, self.shown
        try:
            self.shown += os.read(self._terminal, 65536).decode(errors="replace")
        except OSError:
            return False
        return True

    def press_ctrl_c(self) -> None:
        os.write(self._terminal, b"\x03")

    def terminate(self) -> None:
        """As systemd does it: the driver and all that it has started."""
        os.killpg(self.process.pid, signal.SIGTERM)


@pytest.mark.restart
@pytest.mark.parametrize(
    ("words", "seconds", "end"),
    [
        pytest.param("result to", 1, Run.press_ctrl_c, id="start"),
        pytest.param("start: ", 1, Run.press_ctrl_c, id="ingest"),
        pytest.param(r"density \(blocks\): \d", 0, Run.press_ctrl_c, id="density"),
        pytest.param(r"picks\): \d+", 0, Run.press_ctrl_c, id="selection"),
        pytest.param(r"density \(blocks\): \d", 0, Run.terminate, id="terminated"),
        pytest.param(r"picks\): \d+", 0, Run.terminate, id="terminated while it selects"),
    ],
)
def test_a_signal_ends_a_run_with_one_line_in_any_stage(tmp_path, words, seconds, end):
    """No word of Py4J's, of Java's or of a worker's about what was cut, and no process that stays."""
    run = Run("--input", SAMPLE, "--output", tmp_path / "out", "--budget", 1500, "--no-report")
    run.until(words)
    time.sleep(seconds)
    end(run)
    told = run.to_the_end()
    assert run.process.wait(60) == 1
    stays = [line.rpartition("\x1b[K")[2].strip() for line in told.split("\n")]
    lines = [line for line in stays if line and not re.search(JAVA_STARTS, line) and not re.match(STAGE, line)]
    assert len(lines) == 1, told
    assert lines[0].startswith("error: interrupted; ")
    assert not re.search("Traceback|KeyboardInterrupt|ERROR|py4j", told), told
    deadline = time.monotonic() + 60
    while is_alive(run.process.pid):
        assert time.monotonic() < deadline, "something of the run lives on"
        time.sleep(0.1)


def is_alive(group: int) -> bool:
    """Whether a group of processes has one."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
