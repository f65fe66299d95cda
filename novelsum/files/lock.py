"""One run at a time on an output or a state: claims in ``<folder>/_lock``, on any file system that lists all files.

A run writes a claim, then looks for others. Of two that start at the same moment each sees the other, so at most one
goes on. A claim whose process is gone, or that nobody has renewed for a while, is taken away, and the folder is looked
at again.

The holder renews its claim every few seconds: it writes the next one and then looks whether the last is still there.
Either the one who took that away sees the new one when it looks again, and stops, or the holder sees that its claim was
taken: then it never gets it back, and must not publish. A holder that was paused at any point finds out in the same
way, and no two clocks are ever compared: how old a claim is, its date and that of a claim just written tell, both
given by the storage.
"""

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from novelsum.errors import UsageError, unwritable
from novelsum.files.location import Location

LOCK = "_lock"
RENEWED_EVERY = 15.0
"""Seconds."""
STALE_AFTER = 120.0
"""Seconds without renewal after which the claim of a run on another machine counts for nothing."""
_POLL = 0.5


class Held:
    """A folder held by this run, which the setting ``option`` names."""

    def __init__(self, folder: Location, option: str = "--output") -> None:
        self._folder, self._option, self._lock = folder, option, folder / LOCK
        self._content = {**_process(), "since": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
        self._id, self._written, self._lost = uuid.uuid4().hex, 0, False
        self._busy, self._released = threading.Lock(), threading.Event()
        self._claim, self._date = self._write()

    def refuse_others(self) -> None:
        """Take away the claims of the dead; raise UsageError where a run lives."""
        while others := self._others():
            for other in others:
                reason = self._reason_to_wait(other)
                if reason:
                    raise UsageError(f"{self._option} {self._folder} {reason}")

    def require(self) -> None:
        """Raise UsageError unless the folder is held by this run and no other.

        A run that has just begun and is about to give way is waited for.
        """
        deadline = time.monotonic() + STALE_AFTER + 2 * RENEWED_EVERY
        while True:
            with self._busy:
                self._lost = self._lost or not self._claim.exists()
                if self._lost:
                    raise UsageError(
                        f"{self._claim} is gone: another run took this one for dead; this one ends without a result"
                    )
            reasons = [reason for other in self._others() if (reason := self._reason_to_wait(other))]
            if not reasons:
                return
            if time.monotonic() > deadline:
                raise UsageError(f"beside this run, which ends without a result, {self._folder} {reasons[0]}")
            time.sleep(_POLL)

    def renew(self) -> None:
        """Until released, show every few seconds that this run lives; runs in a thread of its own."""
        while not self._released.wait(RENEWED_EVERY):
            try:
                self._renew()
            except (OSError, pa.ArrowException):
                continue  # storage may be slow for a moment; the claim is found stale only much later

    def release(self) -> None:
        """Let others have the folder."""
        self._released.set()
        with self._busy:
            for claim in self._lock.entries():
                with suppress(FileNotFoundError):
                    is_left = claim.name.startswith(".") and self._age(claim) > STALE_AFTER  # of one killed in writing
                    if is_left or claim.name.startswith(self._id):
                        claim.delete()
        self._lock.delete_if_empty()
        self._folder.delete_if_empty()  # it is there for the lock alone if the run has left nothing in it

    def _renew(self) -> None:
        with self._busy:
            if self._lost or self._released.is_set():
                return
            new, date = self._write()
            own = [claim for claim in self._lock.entries() if claim.name.startswith(self._id)]
            self._lost = self._claim.name not in [claim.name for claim in own]
            if not self._lost:
                self._claim, self._date = new, date
            for claim in own:
                if self._lost or claim.name != new.name:
                    claim.delete()

    def _write(self) -> tuple[Location, float]:
        """Write the next claim; also returns its date, by the storage."""
        self._written += 1
        claim = self._lock / f"{self._id}-{self._written:06d}.json"
        claim.write_bytes(json.dumps(self._content).encode())
        return claim, claim.modified()

    def _others(self) -> list[Location]:
        """What others have written, but for what they are writing at this moment."""
        return [claim for claim in self._lock.entries() if not claim.name.startswith((self._id, "."))]

    def _age(self, claim: Location) -> float:
        """Seconds that a claim is older than this run's last one; raise FileNotFoundError if it is gone."""
        return self._date - claim.modified()

    def _reason_to_wait(self, claim: Location) -> str:
        """Who holds the folder by a claim, in words; empty if it is nobody, and then the claim is there no more."""
        try:
            age, content = self._age(claim), claim.read_bytes()
        except OSError:  # of an object that is deleted when it is read, a store may say anything
            if claim.exists():
                raise
            return ""  # let go at this moment
        owner = _Owner.of(content)
        is_alive = owner.is_alive() if owner else None
        if is_alive is False or (is_alive is None and age >= STALE_AFTER):
            claim.delete()
            return ""
        if is_alive is None and age < -RENEWED_EVERY:  # a clock was set back; now the claim has a date that grows old
            claim.write_bytes(content)
        wait = f"try again in {min(STALE_AFTER, STALE_AFTER - age):.0f} s"
        if owner is None:
            return f"has a claim that cannot be read, {claim}; unless a run is just writing it, {wait}"
        wait = f"if it is dead, {wait}; " if is_alive is None else ""
        return f"is being written by {owner}; {wait}let it end or name another folder"


@contextmanager
def held(folder: Location, option: str = "--output") -> Iterator[Held]:
    """Hold a folder, which the setting ``option`` names; raise UsageError where another run does."""
    try:
        (folder / LOCK).make_folder()
        lock = Held(folder, option)
    except (OSError, pa.ArrowException) as error:
        raise unwritable(f"{folder} cannot be written", error) from None
    try:
        lock.refuse_others()
        renewing = threading.Thread(target=lock.renew, daemon=True)
        renewing.start()
        yield lock
    finally:
        lock.release()


@dataclass(frozen=True)
class _Owner:
    """The process that has written a claim, and since when it holds the folder."""

    host: str
    boot: str
    namespace: str
    pid: int
    started: str
    since: str

    @staticmethod
    def of(content: bytes) -> "_Owner | None":
        """By the content of a claim; None where that is not whole."""
        try:
            fields = json.loads(content)
            owner = _Owner(**{name: fields[name] for name in _Owner.__dataclass_fields__})
        except (ValueError, TypeError, KeyError, RecursionError):
            return None
        return owner if isinstance(owner.pid, int) and owner.pid > 0 else None

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} since {self.since}"

    def is_alive(self) -> bool | None:
        """Whether it lives; None where this process cannot see: on another machine, in another container, for another
        user, or where a system (macOS) has no /proc.
        """
        here = _process()
        if not here["boot"] or any(getattr(self, name) != here[name] for name in ("host", "boot", "namespace")):
            return None
        started = _started(self.pid)
        return None if started is None else started == self.started


def _process() -> dict[str, Any]:
    """What tells this process from all others, on this machine and elsewhere.

    The kernel's boot and the namespace of process numbers tell apart machines and containers of one name; the start
    of a process tells it from an earlier one of the same number.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        boot, namespace = "", ""
    pid = os.getpid()
    return {"host": socket.gethostname(), "boot": boot, "namespace": namespace, "pid": pid, "started": _started(pid)}


def _started(pid: int) -> str | None:
    """When a process started, in ticks since boot; empty if there is none, or it is a zombie; None if it is hidden."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return ""
        except (OSError, OverflowError):
            pass
        return None
    return "" if fields[0] == "Z" else fields[19]
