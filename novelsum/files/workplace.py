"""Where a run works and publishes, what earlier runs left there, and whether it goes on from that.

::

    <output>/_lock/       who is writing (:mod:`~novelsum.files.lock`)
    <output>/_work/       the stage: run.json, what the run is of; result/ and manifest.json, to be published;
                          state.json, what a state is to be once they are
    <work>/0-embed/       where texts are read: their embeddings
    <work>/1-ingest/      a folder for each step: all that it writes, and done.json once it is done, with what the next
    <work>/2-thin/        steps need to know of it; the work directory is in the stage, or where --work-dir says
    ...

A step reads what those before it have left and writes to its own folder. A run is known by its settings and by names,
sizes and times of its input files. The same run goes on from the steps that are done, and so does one that differs in
nothing but how many picks it makes. Another one is refused, with what differs; if it is to overwrite what is there, it
uses those first steps again that do not depend on that (:mod:`~novelsum.files.reuse`). Publishing can be cut at any
point and goes on, too: the manifest is the last to arrive.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, get_args

import pyarrow as pa

import novelsum
from novelsum.errors import DamageError, InputError, UsageError, error_of_a_task, unwritable
from novelsum.files.location import MANIFEST, NO_DATA, Location
from novelsum.files.lock import LOCK, Held, held
from novelsum.files.reuse import LAYOUT, Step, differ_in_budget, of_step
from novelsum.files.source import Look

logger = logging.getLogger("novelsum")

WORK = "_work"
RESULT = "result"
_RUN = "run.json"
_STAGED_MANIFEST = "manifest.json"
_NEXT_STATE = "state.json"
_STAGED_FILES = "files.json"
_CLEARED = "cleared"
ROWS = "_rows.parquet"
"""Where the picks of a selection lie in the input."""
_RESULTS = ("selected", ROWS, "_metrics.json", "diversity.parquet", *NO_DATA)
_DONE = "done.json"
_SPARE = "spare.json"
"""The same of a step before which one is done anew: it is done again once that has come to the same."""
_STEPS: tuple[Step, ...] = get_args(Step)
"""The steps of a run in their order; only one that reads texts has the first."""
_EXPORT = ("export", "export_order", "record_column")
_NO_MATTER = ("output", "overwrite", "work_dir", "keep_work", "master", "block_rows", "in_flight", *_EXPORT)
"""Settings that a result does not depend on; what is exported is made of it."""


def check_output(output: str, inputs: Sequence[str], work_dir: str | None = None) -> Location:
    """The output folder; raise UsageError where it is no folder, or it or the work directory and an input lie in one
    another: what the run writes there would become part of what it reads.
    """
    location = Location.of(output)
    for path in inputs:
        used = Location.of(path)
        if used.contains(location) or location.contains(used.listing_root):
            raise UsageError(f"--output {output} and {path} lie in one another; write to a folder of its own")
        work = _work(location, work_dir)
        if work_dir is not None and (used.contains(work) or work.contains(used.listing_root)):
            raise UsageError(f"--work-dir {work_dir} and {path} lie in one another; work in a folder of its own")
    try:
        location.entries()
    except (OSError, pa.ArrowException) as error:
        raise unwritable(f"--output {output} cannot be a folder", error) from None
    return location


def read_manifest(folder: Location) -> dict[str, Any] | None:
    """The manifest of a result, None where there is none that can be read."""
    try:
        return (folder.listing_root / MANIFEST).read_json()
    except (FileNotFoundError, NotADirectoryError, DamageError):
        return None


def _work(output: Location, work_dir: str | None) -> Location:
    """The work directory: in the output, or a folder of ``work_dir`` named for the output."""
    name = f"novelsum-{hashlib.blake2b(str(output).encode(), digest_size=8).hexdigest()}"
    return output / WORK / "work" if work_dir is None else Location.of(work_dir) / name


def identity(job: str, settings: dict[str, Any], inputs: dict[str, Look]) -> dict[str, Any]:
    """What a run is of: its job, its settings, and the files of its ``inputs`` by the name of their setting."""
    plain = json.loads(json.dumps({name: value for name, value in settings.items() if name not in _NO_MATTER}))
    return {"job": job, "settings": plain, "files": {name: _files(seen) for name, seen in inputs.items()}}


@dataclass(frozen=True)
class SelectedBefore:
    """Samples selected before a run, as their files were ``seen``.

    ``outputs``: of the selections they are results of, as far as they are; ``later``: of those that were named too but
    began with the run's own picks.
    """

    seen: Look
    outputs: list[str]
    later: list[str]


def selected_before(seen: Look, output: Location) -> SelectedBefore:
    """The files that ``already_selected`` means for a run with that output, which may be run again.

    A selection whose manifest says that it began with picks of that output came after it, and so did one that began
    with picks of such a one. Raises InputError where nothing is left.
    """
    of_file = {file: file.parent.parent for file in seen.files if file.parent.name == "selected"}
    manifests = {place: read_manifest(place) for place in sorted(set(of_file.values()), key=str)}
    began_with = {
        str(place): (read or {}).get("selected", {}).get("began_with", ()) for place, read in manifests.items()
    }
    later, found = set[str](), {str(output)}
    while found:
        found = {place for place, begun in began_with.items() if found.intersection(begun)} - later
        later |= found
    left = [file for file in seen.files if str(of_file.get(file)) not in later]
    if not left:
        raise InputError(
            f"--already-selected {seen.path} names only selections that began with the picks of {output}; leave it out "
            "to begin with nothing"
        )
    outputs = [str(place) for place, manifest in manifests.items() if manifest and str(place) not in later]
    return SelectedBefore(seen.only(left), outputs, sorted(later))


def _files(seen: Look) -> dict[str, Any]:
    """Number and bytes of the files of a path, and a digest of their names, sizes and times."""
    found = [(str(file), stamp.size, stamp.written) for file, stamp in zip(seen.files, seen.stamps, strict=True)]
    digest = hashlib.blake2b(json.dumps(found).encode(), digest_size=12).hexdigest()
    return {"files": len(found), "bytes": sum(size for _, size, _ in found), "digest": digest}


def _difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    """What differs between two runs, in words; empty if nothing does."""
    if before["job"] != now["job"]:
        return f"the job was {before['job']}"
    for name, value in sorted(now["settings"].items(), key=lambda one: one[0] == "budget"):  # rarely what is in the way
        if before["settings"].get(name) != value and (name in before["settings"] or value):  # older runs had it off
            return f"{_flag(name)} was {before['settings'].get(name)!r} and is {value!r}"
    for name, files in now["files"].items():
        was = before["files"].get(name)
        if was is None or (was["files"], was["bytes"]) != (files["files"], files["bytes"]):
            before_it = f"{was['files']} file(s) of {was['bytes']} bytes" if was else "not given"
            return f"{_flag(name)} was {before_it} and is {files['files']} file(s) of {files['bytes']} bytes"
        if was["digest"] != files["digest"]:
            return f"the files of {_flag(name)} were written again"
    return ""


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


@dataclass(frozen=True)
class Workplace:
    """The folders of a run that is known by its ``identity``."""

    output: Location
    work: Location
    identity: dict[str, Any]

    @staticmethod
    def of(output: Location, work_dir: str | None, identity: dict[str, Any]) -> "Workplace":
        """The place of a run with that output and ``--work-dir``."""
        return Workplace(output, _work(output, work_dir), identity)

    @property
    def stage(self) -> Location:
        """Where results wait to be published."""
        return self.output / WORK

    @property
    def result(self) -> Location:
        """Where a run writes its results."""
        return self.stage / RESULT

    @property
    def key(self) -> str:
        """A digest of the identity."""
        return hashlib.blake2b(json.dumps(self.identity, sort_keys=True).encode(), digest_size=16).hexdigest()

    # --- before the run -----------------------------------------------------------------------------------

    def is_complete(self, overwrite: bool) -> bool:
        """Whether the output holds the result of this very run; raise UsageError where it holds anything else."""
        entries = [entry.name for entry in self.output.entries()]
        result = [name for name in entries if not _is_leftover(name)]
        if MANIFEST not in entries:
            if result and not self._started():
                raise UsageError(
                    f"--output {self.output} is not empty and has no {MANIFEST}, so no job wrote it and none touches "
                    "it; name another folder"
                )
            return False
        foreign = [name for name in result if not _is_result(name)]
        if foreign:
            raise UsageError(
                f"--output {self.output} holds {foreign[0]!r}, which no job wrote, so none will touch the folder; name "
                "another one"
            )
        if overwrite:
            return False
        manifest = read_manifest(self.output) or {}
        found = _difference(manifest["identity"], self.identity) if "identity" in manifest else "it cannot be compared"
        if found and self.earlier():
            return False
        if found:
            raise UsageError(
                f"--output {self.output} holds the result of another run: {found}; name another folder or replace it "
                "with --overwrite"
            )
        return not self._owes_a_state()

    def earlier(self) -> dict[str, Any] | None:
        """The manifest of a result in the output from whose picks this run goes on, or has the first of."""
        manifest = read_manifest(self.output) or {}
        is_of_this = manifest.get("versions", {}).get("novelsum") == novelsum.__version__
        return manifest if is_of_this and differ_in_budget(manifest.get("identity", {}), self.identity) else None

    def tidy(self, keep_work: bool) -> None:
        """Remove what a run has left that was cut after it had published."""
        has_work = self.stage.exists() and not keep_work
        if has_work or (self.output / LOCK).exists():
            with held(self.output):
                if has_work:
                    self._discard()

    @contextmanager
    def held(self, overwrite: bool, keep_work: bool, goes_on: bool = True) -> Iterator[Held]:
        """Hold the output while the run works in it, and clear up after it.

        Work that a run with another identity has left is replaced if ``overwrite`` says so, and refused otherwise.
        A run that ``goes_on`` leaves the steps that are done for its next try, after a failure that is not the user's
        to mend; another begins anew.
        """
        with held(self.output) as lock:
            try:
                self._prepare(overwrite, goes_on)
                yield lock
            except BaseException as error:
                is_spoilt = isinstance(error_of_a_task(error) or error, InputError | DamageError)
                if isinstance(error, UsageError):
                    pass  # nothing was begun, or it is somebody else's
                elif is_spoilt or not goes_on or not self._has_begun():
                    self._discard()
                raise
            if not (keep_work and self.stage.contains(self.work)):
                self.stage.delete()
            if not keep_work:
                self.work.delete()

    def _prepare(self, overwrite: bool, goes_on: bool) -> None:
        started = self._started()
        found = self._other(started) if started else ""
        if started and not found and goes_on:
            self._tell(self._steps_done())
            return
        if started and found and not overwrite and not self._goes_on_from(started):
            raise UsageError(
                f"{self.stage} holds an unfinished run that is another one: {found}; run that to its end, or start "
                "over with --overwrite"
            )
        try:
            kept = self._keep_steps(started) if goes_on else []
            spares = any((self.folder(step) / _SPARE).exists() for step in _STEPS)
            for folder in (self.stage, self.work):
                if not kept and not spares:
                    folder.delete()
                folder.make_folder(private=True)
            for entry in self.stage.entries():
                if not entry.contains(self.work):
                    entry.delete()
        except (OSError, pa.ArrowException) as error:
            raise unwritable(f"{self.stage} or {self.work} cannot be written", error) from None
        run = {"version": novelsum.__version__, "layout": LAYOUT, "identity": self.identity}
        (self.stage / _RUN).write_bytes(json.dumps(run).encode())
        self._tell(kept)

    def _tell(self, steps: list[str]) -> None:
        if steps:
            logger.info("going on after %s, which %s holds", ", ".join(steps), self.work)

    def _other(self, started: dict[str, Any]) -> str:
        """What makes a run in the stage another one, in words; empty if nothing does."""
        if started["version"] != novelsum.__version__:
            return f"novelsum was {started['version']} and is {novelsum.__version__}"
        if not self._is_of_this(started):
            return f"its folders are those of another novelsum {novelsum.__version__}"
        return _difference(started["identity"], self.identity)

    def _goes_on_from(self, started: dict[str, Any]) -> bool:
        """Whether a run in the stage is this one but for how many picks it makes."""
        return self._is_of_this(started) and differ_in_budget(started["identity"], self.identity)

    def _is_of_this(self, started: dict[str, Any]) -> bool:
        return (started["version"], started.get("layout")) == (novelsum.__version__, LAYOUT)

    def _keep_steps(self, started: dict[str, Any] | None) -> list[str]:
        """The first steps that were done with all that they depend on as it is now; the folders of others go.

        Texts that the run in the stage has ``started`` to embed are gone on with where it would embed them as this one.
        """
        kept: list[str] = []
        for step in self._steps:
            try:
                record = self._record(step)
            except DamageError:
                break
            if record is None or record.get("of") != of_step(self.identity, step):
                break
            kept.append(step)
        if not kept and "embed" in self._steps and started and self._is_of_this(started):
            same = of_step(started["identity"], "embed") == of_step(self.identity, "embed")
            kept += ["embed"] if same and self.folder("embed").exists() else []
        for step in _STEPS:
            if step not in kept:
                self._undo(step)
        return kept

    def _started(self) -> dict[str, Any] | None:
        """What the run in the stage is of."""
        try:
            return (self.stage / _RUN).read_json()
        except (FileNotFoundError, NotADirectoryError, DamageError):
            return None

    def _has_begun(self) -> bool:
        """Whether a next try has something to go on from; work that cannot be read at this moment may be that."""
        try:
            return self.done("ingest") is not None or self.folder("embed").exists()
        except (OSError, pa.ArrowException):
            return True

    def _owes_a_state(self) -> bool:
        """Whether this very run was cut before the state that it changes was written."""
        started = self._started()
        is_this = started is not None and not _difference(started["identity"], self.identity)
        return is_this and (self.stage / _NEXT_STATE).exists()

    def _discard(self) -> None:
        self.work.delete()
        self.stage.delete()

    # --- during the run -----------------------------------------------------------------------------------

    def folder(self, step: Step) -> Location:
        """Where a step writes, and nowhere else but to the results."""
        return self.work / f"{_STEPS.index(step)}-{step}"

    def do(
        self, step: Step, act: Callable[[Location], dict[str, Any]], on: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """What a step has left for the others, as JSON: of an earlier try, or by ``act`` in its folder, empty then.

        ``on``: what it depends on beside settings. With the same it is used again, whatever was done anew before it.
        """
        content = self.done(step)
        if content is None and on is not None and self._spared(step, on):
            content = self.done(step)
            logger.info("%s is used again: the candidates are the same", step)
        if content is None:
            content = act(self.emptied(step))
            self.finish(step, content, on)
        return content

    def emptied(self, step: Step) -> Location:
        """The folder of a step that begins anew; what was done after it is undone."""
        folder = self.begun(step)
        folder.delete()
        folder.make_folder()
        return folder

    def begun(self, step: Step) -> Location:
        """The folder of a step that goes on with what it finds there; what was done after it is undone."""
        for undone in reversed(_STEPS[_STEPS.index(step) + 1 :]):
            self._undo(undone)
        self.folder(step).make_folder()
        return self.folder(step)

    def _undo(self, step: Step) -> None:
        """A step is no longer done; one that may yet turn out to be keeps its files."""
        folder = self.folder(step)
        try:
            record = self._record(step)
        except DamageError:
            record = None
        if record and record.get("on") and record.get("of") == of_step(self.identity, step):
            self._done(step).move_to(folder / _SPARE)
        elif record or not (folder / _SPARE).exists():
            folder.delete()

    def _spared(self, step: Step, on: dict[str, Any]) -> bool:
        """Make a step done again that was undone, if it was done on the same and nothing of it is lost."""
        file = self.folder(step) / _SPARE
        try:
            record = file.read_json() if file.exists() else {}
        except DamageError:
            return False
        if record.get("on") != json.loads(json.dumps(on)) or record.get("of") != of_step(self.identity, step):
            return False
        if self._missing(step, record):
            return False
        file.move_to(self._done(step))
        return True

    def done(self, step: Step) -> dict[str, Any] | None:
        """What a step that is done has left for the others, None where it is not done."""
        record = self._record(step)
        return record and record["content"]

    def finish(self, step: Step, content: dict[str, Any], on: dict[str, Any] | None = None) -> None:
        """A step is done, and need not be done again while the files that it has written are as they are now."""
        files, of = self.folder(step).sizes(), of_step(self.identity, step)
        record = {"content": content, "files": files, "of": of, "on": on}
        self._done(step).write_bytes(json.dumps(record).encode())

    def check_steps(self) -> None:
        """Forget a step of an earlier try, and all after it, where a file is not there as the step has left it.

        What was written to the folders later, as picks are, does not count.
        """
        lost = ""
        for step in self._steps:
            lost = lost or self._lost(step)
            if lost and self._done(step).exists():
                logger.warning("%s; %s is done again", lost, step)
                self._done(step).delete()

    def _lost(self, step: Step) -> str:
        """A file that is not there as the step has left it, in words; empty if there is none."""
        record = self._record(step)
        return f"{self._done(step)} is missing" if record is None else self._missing(step, record)

    def _missing(self, step: Step, record: dict[str, Any]) -> str:
        """A file that is not there as the record of a step has it, in words; empty if there is none."""
        found = self.folder(step).sizes()
        for file, size in record["files"].items():
            if found.get(file) != size:
                now = f"has {found[file]} bytes, not {size}" if file in found else "is missing"
                return f"{self.folder(step) / file} {now}"
        return ""

    def _record(self, step: Step) -> dict[str, Any] | None:
        """What is written of a step that is done: what it has left for the others, and its files."""
        return self._done(step).read_json() if self._done(step).exists() else None

    def _done(self, step: Step) -> Location:
        return self.folder(step) / _DONE

    @property
    def _steps(self) -> tuple[Step, ...]:
        """The steps of this run: one that reads no texts has no first."""
        return _STEPS if self.identity.get("settings", {}).get("model") else _STEPS[1:]

    def _steps_done(self) -> list[str]:
        return [step for step in self._steps if self._done(step).exists()]

    def start_results(self) -> None:
        """Make room in the stage for results; a try that was cut may have left some, or have begun to publish them."""
        for name in (_NEXT_STATE, _STAGED_MANIFEST, _STAGED_FILES, _CLEARED, RESULT):
            (self.stage / name).delete()
        self.result.make_folder()

    def stage_aside(self, step: Location, name: str, to: str = "") -> None:
        """Put what a step has set aside in the folder of that name among the results, under that name or another.

        It is copied: so the step that wrote it stays done whatever becomes of the results.
        """
        aside = step / name
        for file in aside.sizes():
            (self.result / (to or name)).make_folder()
            (self.result / (to or name) / file).write_bytes((aside / file).read_bytes())

    # --- at its end ---------------------------------------------------------------------------------------

    def staged(self) -> dict[str, Any] | None:
        """The manifest of the results in the stage, if they are complete and none of their files was lost since."""
        if not self.is_staged():
            return None
        found = self.result.sizes()
        lost = {
            name: size for name, size in (self.stage / _STAGED_FILES).read_json().items() if found.get(name) != size
        }
        if lost:  # publishing may have been cut
            found = self.output.sizes()
            lost = {name: size for name, size in lost.items() if found.get(name) != size}
        if lost:
            logger.warning("%s of the results is lost or damaged; they are made again", next(iter(lost)))
            return None
        return (self.stage / _STAGED_MANIFEST).read_json()

    def is_staged(self) -> bool:
        """Whether results were declared complete and are not yet published."""
        return (self.stage / _STAGED_MANIFEST).exists()

    def next_state(self) -> dict[str, Any] | None:
        """What a state is to be after the results in the stage, or published from it; None where that is not known."""
        file = self.stage / _NEXT_STATE
        is_complete = self.is_staged() or (self.stage / _CLEARED).exists()
        return file.read_json() if is_complete and file.exists() else None

    def stage_manifest(self, manifest: dict[str, Any], next_state: dict[str, Any] | None = None) -> None:
        """Declare the results in the stage complete; ``next_state`` is for the run to write once they are published."""
        if next_state is not None:
            (self.stage / _NEXT_STATE).write_bytes(json.dumps(next_state).encode())
        (self.stage / _STAGED_FILES).write_bytes(json.dumps(self.result.sizes()).encode())
        content = {**manifest, "identity": self.identity}
        (self.stage / _STAGED_MANIFEST).write_bytes((json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())

    def note(self, name: str, value: Any) -> None:
        """Enter something into the manifest of the results, staged or published."""
        file = self.stage / _STAGED_MANIFEST if self.is_staged() else self.output / MANIFEST
        content = {**file.read_json(), name: value}
        file.write_bytes((json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())

    def publish(self, lock: Held) -> None:
        """Replace what the output holds by the results in the stage: its manifest goes first and comes last."""
        lock.require()
        if not (self.stage / _CLEARED).exists():
            for entry in sorted(self.output.entries(), key=lambda entry: entry.name != MANIFEST):
                if _is_result(entry.name) or entry.name.startswith(f".{MANIFEST}."):
                    entry.delete()
            (self.stage / _CLEARED).write_bytes(b"")
        for result in self.result.entries():
            if not result.name.startswith("."):  # what a task has left that was killed
                result.move_to(self.output / result.name)
        (self.stage / _STAGED_MANIFEST).move_to(self.output / MANIFEST)

    def settle(self) -> None:
        """The state is what it was to be."""
        (self.stage / _NEXT_STATE).delete()


def _is_result(name: str) -> bool:
    part_of_density = name.startswith("part-") and name.endswith(".parquet")
    return part_of_density or name in (MANIFEST, *_RESULTS)


def _is_leftover(name: str) -> bool:
    """Whether a run that was killed may have left it."""
    return name in (WORK, LOCK) or name.startswith(f".{MANIFEST}.")
