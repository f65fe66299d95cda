"""Claims on a folder: held by one run at a time, renewed, and taken away when their run is dead."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from conftest import ELSEWHERE

from novelsum.errors import UsageError
from novelsum.files import lock
from novelsum.files.location import Location
from novelsum.files.lock import held


@pytest.fixture
def output(tmp_path):
    return Location.of(str(tmp_path / "out"))


def claim_of_another(output: Location, content: bytes, age: float = 0.0) -> Path:
    """A claim as another has left it, that long ago."""
    claim = Path(output.path) / "_lock" / "0123.json"
    claim.parent.mkdir(parents=True, exist_ok=True)
    written = claim.with_name(".0123")  # a reader sees it whole or not at all
    written.write_bytes(content)
    os.utime(written, (time.time() - age,) * 2)
    written.replace(claim)
    return claim


def claims(output: Location) -> list[str]:
    return [claim.name for claim in (output / "_lock").entries()]


def wait_for(condition, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


MALFORMED = [b"", b"{", b"{}", b"[]", b"3", b"\xff\x00\x01", b'{"pid": "x"}', b"[" * 100_000]


@pytest.mark.parametrize("content", MALFORMED, ids=range(len(MALFORMED)))
def test_a_claim_that_cannot_be_read_counts_while_it_is_young(output, content):
    """Somebody may just be writing it; later it is taken away."""
    claim = claim_of_another(output, content)
    refusal = r"--output .*out has a claim that cannot be read, .*0123\.json; unless .*, try again in 1\d\d s$"
    with pytest.raises(UsageError, match=refusal), held(output):
        pass
    assert claims(output) == ["0123.json"]
    claim_of_another(output, content, age=1000)
    with held(output):
        assert not claim.exists()
    assert not Path(output.path).exists()


@pytest.mark.parametrize("content", [json.dumps(ELSEWHERE).encode(), b""], ids=["whole", "malformed"])
def test_a_claim_dated_ahead_is_waited_for_no_longer_than_any(output, content, monkeypatch):
    """A clock was set back by a day; a claim that nobody renews is taken away after the usual time."""
    claim_of_another(output, content, age=-86_400)
    with pytest.raises(UsageError, match="try again in 120 s"), held(output):
        pass
    monkeypatch.setattr(lock, "STALE_AFTER", 0.5)
    time.sleep(0.6)
    with held(output) as mine:
        assert len(claims(output)) == 1
        mine.require()


def test_how_old_a_claim_is_only_the_storage_tells(output, monkeypatch):
    """The clock of this machine may say anything."""
    clock = time.time
    for shift in (1e6, -1e6):
        claim_of_another(output, json.dumps(ELSEWHERE).encode())
        monkeypatch.setattr(time, "time", lambda shift=shift: clock() + shift)
        with pytest.raises(UsageError, match=r"process 1 on elsewhere .*try again in 1\d\d s"), held(output):
            pass
        monkeypatch.setattr(time, "time", clock)
        claim_of_another(output, json.dumps(ELSEWHERE).encode(), age=1000)
        monkeypatch.setattr(time, "time", lambda shift=shift: clock() + shift)
        with held(output):
            assert len(claims(output)) == 1
        monkeypatch.setattr(time, "time", clock)


def test_a_claim_that_is_renewed_stays_held(output, monkeypatch):
    monkeypatch.setattr(lock, "RENEWED_EVERY", 0.05)
    with held(output) as mine:
        (first,) = claims(output)
        wait_for(lambda: first not in claims(output))
        mine.require()
        with pytest.raises(UsageError, match=rf"process {os.getpid()} on "), held(output):
            pass
        mine.require()
    assert not Path(output.path).exists()


def test_a_claim_that_was_taken_away_never_comes_back(output, monkeypatch):
    """Not even for a moment that another could take for its own: between any look and any write of the renewal."""
    monkeypatch.setattr(lock, "RENEWED_EVERY", 0.05)
    write, is_taken = Location.write_bytes, threading.Event()

    def taken_before_it_writes(self, content) -> None:
        if threading.current_thread() is not threading.main_thread() and not is_taken.is_set():
            for claim in (output / "_lock").entries():
                claim.delete()
            is_taken.set()
        write(self, content)

    with held(output) as mine:
        monkeypatch.setattr(Location, "write_bytes", taken_before_it_writes)
        assert is_taken.wait(10)
        wait_for(lambda: not claims(output))
        with held(output) as other:  # who took it
            with pytest.raises(UsageError, match="is gone: another run took this one for dead"):
                mine.require()
            time.sleep(0.2)
            assert len(claims(output)) == 1
            other.require()


def test_a_claim_seen_gone_once_is_gone_for_good(output):
    with held(output) as mine:
        (claim,) = (output / "_lock").entries()
        content = claim.read_bytes()
        claim.delete()
        with pytest.raises(UsageError, match="is gone"):
            mine.require()
        claim.write_bytes(content)
        with pytest.raises(UsageError, match="is gone"):
            mine.require()


def test_nothing_is_published_beside_another_claim(output, monkeypatch):
    """One that is about to give way is waited for."""
    monkeypatch.setattr(lock, "_POLL", 0.02)
    with held(output) as mine:
        claim = claim_of_another(output, json.dumps(ELSEWHERE).encode())
        threading.Timer(0.3, claim.unlink).start()
        started = time.monotonic()
        mine.require()
        assert time.monotonic() - started > 0.2
        claim_of_another(output, json.dumps(ELSEWHERE).encode())
        monkeypatch.setattr(lock, "STALE_AFTER", 0.2)
        monkeypatch.setattr(lock, "RENEWED_EVERY", 0.0)
        stays = threading.Event()

        def renewed() -> None:
            while not stays.wait(0.01):
                claim_of_another(output, json.dumps(ELSEWHERE).encode(), age=-5)

        other = threading.Thread(target=renewed)
        other.start()
        with pytest.raises(UsageError, match=r"ends without a result, .*out is being written by process 1 on "):
            mine.require()
        stays.set()
        other.join()
        claim.unlink()


def test_the_claim_of_a_dead_process_is_taken_away_at_once(output):
    code = "import sys; from novelsum.files.lock import held; from novelsum.files.location import Location\n"
    code += "with held(Location.of(sys.argv[1])): print(flush=True); sys.stdin.read()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, output.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline()
    with pytest.raises(UsageError, match=rf"written by process {process.pid} on .*\d\dZ; let it end"), held(output):
        pass
    process.kill()
    process.communicate()
    with held(output):
        assert len(claims(output)) == 1


def test_the_number_of_a_dead_process_may_be_used_again(output):
    """The start of the process that has it now is another."""
    here = {**lock._process(), "since": "2026-01-01T00:00:00Z"}
    claim_of_another(output, json.dumps({**here, "started": "1"}).encode())
    with held(output):
        assert len(claims(output)) == 1


@pytest.mark.parametrize("hidden", [{"boot": "", "namespace": "", "started": None}, {"namespace": "pid:[1]"}])
def test_a_process_that_cannot_be_seen_is_judged_by_the_age_of_its_claim(output, hidden, monkeypatch):
    """Where a system has no /proc, and in another container of the same name."""
    content = json.dumps({**lock._process(), "since": "2026-01-01T00:00:00Z", **hidden}).encode()
    if not hidden.get("boot", "some"):
        process = lock._process
        monkeypatch.setattr(lock, "_process", lambda: {**process(), **hidden})
    claim_of_another(output, content)
    with pytest.raises(UsageError, match="if it is dead, try again in 1"), held(output):
        pass
    claim_of_another(output, content, age=1000)
    with held(output):
        assert len(claims(output)) == 1


def test_any_folder_is_held_under_the_name_of_its_setting(output):
    refusal = rf"^--update {output.path} is being written by process {os.getpid()} "
    with held(output, "--update"), pytest.raises(UsageError, match=refusal), held(output, "--update"):
        pass


def test_what_a_run_has_left_that_was_killed_in_writing_its_claim_goes(output):
    claim_of_another(output, b"", age=1000).rename(Path(output.path) / "_lock" / ".0123.json.4567")
    with held(output):
        pass
    assert not Path(output.path).exists()
