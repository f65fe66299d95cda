"""What a run tells while it works: a bar and a line a stage on a terminal, log lines elsewhere."""

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


STAGES = """
import logging, time
from novelsum.spark import progress, stages
progress.log_to_stderr()
log = logging.getLogger("novelsum")
log.info("curate: 2869 rows")
timed = stages.Stages()
with timed.time("selection") as facts:
    log.info("selection: needs 3 MiB of scratch")
    with progress.Progress("selection (picks)", 2) as bar:
        for done in range(3):
            time.sleep(0.3)
            bar.reach(done)
    log.warning("a disk is slow")
    facts.update(picks=2, method="exact")
with timed.time("write"):
    pass
try:
    with timed.time("report"):
        log.info("about to fail")
        raise OSError
except OSError:
    log.error("the report failed")
"""


def test_a_terminal_shows_a_bar_with_picks_done_picks_per_second_and_time_left():
    shown = on_terminal(COUNTING)
    steps = shown.split("\r")
    assert re.search(r"█+·+ selection \(picks\): \d+ of 50, \d+\.\d/s, \d+ s left", steps[2])


def test_on_a_terminal_one_line_of_each_stage_stays():
    """In words and without a date; a warning stays too, and what is told of a stage that fails."""
    shown = on_terminal(STAGES)
    assert "selection: needs 3 MiB of scratch" in shown
    assert "█" * 15 + "·" * 15 + " selection (picks): 1 of 2" in shown
    assert re.fullmatch(
        r"curate: 2869 rows\na disk is slow\nselection: 2 picks, method exact, \d\.\d s\nwrite: 0\.0 s\n"
        r"the report failed\n",
        staying(shown),
    )


def test_elsewhere_all_lines_are_logged_and_that_of_a_stage_has_names_and_values():
    done = subprocess.run([sys.executable, "-c", STAGES], capture_output=True, text=True, check=True)
    lines = [line.split(maxsplit=2)[2] for line in done.stderr.splitlines()]
    assert lines[1] == "selection: needs 3 MiB of scratch"
    assert re.fullmatch(r"selection \(picks\): 2 in \d\.\d s", lines[2])
    assert re.fullmatch(r"stage=selection seconds=\d\.\d+ picks=2 method=exact", lines[4])
    assert "\r" not in done.stderr


def on_terminal(program: str) -> str:
    """What a program writes to a terminal as its standard error."""
    terminal, side = pty.openpty()
    with subprocess.Popen([sys.executable, "-c", program], stderr=side) as process:
        os.close(side)
        shown = b""
        while part := _read(terminal):
            shown += part
    assert process.returncode == 0
    return shown.decode()


def staying(shown: str) -> str:
    """What of it is still there in the end: each line without what was written over."""
    lines = shown.replace("\r\n", "\n").split("\n")
    return "\n".join(line.rpartition("\r\x1b[K")[2] for line in lines)


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
