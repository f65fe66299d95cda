"""How far a stage is: a bar on a terminal, log lines elsewhere."""

import os
import pty
import re
import subprocess
import sys

COUNTING = """
import time
from novelsum.spark import progress
progress.LOG_SECONDS = 0.1
progress.log_to_stderr()
with progress.Progress("selection (picks)", 50) as bar:
    for done in range(51):
        time.sleep(0.02)
        bar.reach(done)
"""


def test_a_terminal_shows_a_bar_with_picks_done_picks_per_second_and_time_left():
    terminal, side = pty.openpty()
    with subprocess.Popen([sys.executable, "-c", COUNTING], stderr=side) as process:
        os.close(side)
        shown = b""
        while part := _read(terminal):
            shown += part
    assert process.returncode == 0
    steps = shown.decode().split("\r")
    assert re.search(r"█+·+ selection \(picks\): \d+ of 50, \d+\.\d/s, \d+ s left", steps[2])
    assert "█" * 30 + " selection (picks): 50 of 50" in shown.decode()


def _read(terminal: int) -> bytes:
    """What comes next from the terminal; nothing once its other side is closed."""
    try:
        return os.read(terminal, 4096)
    except OSError:
        return b""


def test_elsewhere_a_line_is_logged_from_time_to_time():
    done = subprocess.run([sys.executable, "-c", COUNTING], capture_output=True, text=True, check=True)
    lines = done.stderr.splitlines()
    assert len(lines) >= 4
    assert "█" not in done.stderr
    assert re.fullmatch(r"[-\d]+ [:\d]+ selection \(picks\): \d+ of 50, \d+\.\d/s, \d+ s left", lines[0])
    assert re.fullmatch(r"[-\d]+ [:\d]+ selection \(picks\): 50 in \d+\.\d s", lines[-1])
