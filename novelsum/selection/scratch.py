"""A block's vectors and the state of its candidates, in files of the executor's local scratch that are mapped.

The store and the pick log are the truth. Scratch is made from the store when a task does not find it, and a
state that a task left half changed is started over; either costs time only. One task at a time holds a block.
"""

import fcntl
import json
import mmap
import shutil
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from novelsum.density.factors import read_density
from novelsum.errors import RunError
from novelsum.files.location import Location
from novelsum.files.store import Block, read_block
from novelsum.formula import metric_space
from novelsum.groups import Group
from novelsum.rows import Integers
from novelsum.selection.candidates import Candidates, Units
from novelsum.selection.check import MARKS, STATE, STATE_BYTES, BlockCandidates, empty
from novelsum.selection.scoring import Scoring
from novelsum.spark.local import folder_of, made_aside, make_array

_SLAB = 512
"""So many vectors are in float64 at a time."""
_DIRTY, _PICKS = range(2)
_LARGEST = np.finfo(np.float32).max
_PLAIN = (1e-15, 1e15)
"""Float32 vectors of lengths in this range are multiplied as they are; others are brought to length 1 first."""


def block_bytes(rows: int, dimension: int, itemsize: int) -> int:
    """Bytes of scratch for a block, at most."""
    vectors = itemsize + (4 if itemsize > 4 else 0)
    return int(rows * (dimension * vectors + STATE_BYTES + 7 * 8))


def compared_bytes(rows: int, dimension: int) -> int:
    """Bytes of scratch that other strategies take for a block: float64 points, and the distance of each to its nearest
    pick.
    """
    return rows * (8 * (dimension + 1) + 8)


def selections_bytes(picks: int, dimension: int) -> int:
    """Bytes that ``--compare`` takes on every host besides: float64 points of four selections, five at random."""
    return 8 * picks * 8 * (dimension + 1)


@dataclass(frozen=True)
class Scratch:
    """A block in scratch, held by this task: ``candidates`` and their ``state`` as the check needs them.

    ``stored``: the same candidates as they are stored.
    """

    candidates: BlockCandidates
    state: dict[str, NDArray[Any]]
    stored: Candidates
    longest: float
    """The greatest length of a point in the metric's space."""
    head: Integers

    def start(self, committed: int) -> int:
        """How many of the ``committed`` picks the sketches hold; they are started over where they are of no use."""
        known = 0 if self.head[_DIRTY] else int(self.head[_PICKS])
        assert known <= committed, "this task belongs to a round that is over"
        self.head[_DIRTY] = 1
        if not known:
            empty(self.state)
        return known

    def done(self, committed: int) -> None:
        """The sketches hold that many picks now."""
        self.head[_PICKS] = committed
        self.head[_DIRTY] = 0

    def release(self, tile: slice) -> None:
        """Let the system have back the memory that maps some rows of the vectors; Linux gives it back at once."""
        for array in (self.candidates.vectors, self.stored.vectors):
            if isinstance(array, np.memmap):
                row, page = array.strides[0], mmap.PAGESIZE
                first = (array.offset + tile.start * row) // page * page
                mapping: mmap.mmap = vars(array)["_mmap"]
                mapping.madvise(mmap.MADV_DONTNEED, first, array.offset + tile.stop * row - first)


@contextmanager
def opened(
    work: Location,
    factors: Location,
    run: str,
    block: Block,
    scoring: Scoring,
    units: Units,
    twins: bool,
    groups: tuple[Group, ...],
) -> Iterator[Scratch]:
    """Hold a block's scratch, made from the store if it is not there whole. ``groups``: those of quotas, in order."""
    folder = folder_of(run) / block.name
    with ExitStack() as held:
        for is_last in (False, False, True):
            try:
                if not folder.exists():
                    _make(folder, read_candidates(work, factors, block, scoring, groups), scoring, twins)
                lock = held.enter_context(open(folder / "lock", "rb"))
                fcntl.flock(lock, fcntl.LOCK_EX)  # of Linux and macOS, not of Windows
                scratch = _mapped(folder, units)
                break
            except FileNotFoundError as error:  # somebody cleans up, at this moment even; maps outlive that
                if is_last:
                    raise RunError(
                        f"{folder} on {socket.gethostname()} is deleted again and again while a run uses it; stop what "
                        "deletes it, and run again to go on"
                    ) from error
                shutil.rmtree(folder, ignore_errors=True)
        yield scratch


def read_candidates(
    work: Location, factors: Location, block: Block, scoring: Scoring, groups: tuple[Group, ...]
) -> Candidates:
    """A block of the store in ``work`` and its density factors. ``groups``: those of quotas, in order."""
    stored, density = read_block(work, block.name), read_density(factors, block.name).density
    of_each = None if stored.groups is None else stored.groups.to_pylist()
    traits = (stored.quality, of_each, stored.cost)
    return Candidates.of(stored.rows, stored.vectors, density, *traits, scoring, groups)


def _make(folder: Path, stored: Candidates, scoring: Scoring, twins: bool) -> None:
    """Write the files of a block beside their place and move them there."""
    with made_aside(folder) as made:
        slabs = [stored.vectors[start : start + _SLAB] for start in range(0, len(stored.vectors), _SLAB)]
        norms = np.concatenate([np.square(metric_space(slab, scoring.metric)).sum(axis=1) for slab in slabs])
        lengths = np.sqrt(np.concatenate([np.square(slab, dtype=np.float64).sum(axis=1) for slab in slabs]))
        is_plain = stored.vectors.dtype == np.float32 and np.all((lengths > _PLAIN[0]) & (lengths < _PLAIN[1]))
        save = {**vars(stored), "norms": norms}
        if not is_plain:
            longest = np.sqrt(norms.max(initial=0.0)) or 1.0
            spaces = [(metric_space(slab, scoring.metric) / longest).astype(np.float32) for slab in slabs]
            save["points"] = np.concatenate(spaces)
            save["factor"] = np.full(len(norms), longest)
        else:
            save["factor"] = 1 / lengths if scoring.metric == "cosine" else np.ones(len(norms))
        if twins:
            others = (stored.quality, stored.groups, stored.cost)
            save["twin"] = _twins(stored.vectors, *(column for column in others if np.ptp(column) > 0))
        for name, values in save.items():
            np.save(made / f"{name}.npy", values)
        (made / "arrays.json").write_text(json.dumps(list(save)))
        for name, (kind, shape) in STATE.items():
            make_array(made / f"state-{name}.npy", kind, (len(norms), *shape))
        for name, length in MARKS.items():
            np.save(made / f"state-{name}.npy", np.full(length, -1))
        np.save(made / "head.npy", np.array([1, 0]))  # dirty: there are no sketches yet
        (made / "lock").touch()


def _twins(vectors: NDArray[Any], *others: NDArray[Any]) -> Integers:
    """For each row the place of the one before it with equal values in all arrays, or -1."""
    rows = np.ascontiguousarray(np.column_stack([vectors + 0, *others]))
    keys = rows.view(np.dtype((np.void, rows.shape[1] * rows.dtype.itemsize))).reshape(-1)
    _, group = np.unique(keys, return_inverse=True)
    order = np.argsort(group, kind="stable")
    same = group[order][1:] == group[order][:-1]
    twin = np.full(len(vectors), -1)
    twin[order[1:][same]] = order[:-1][same]
    return twin


_known: dict[Path, tuple[tuple[int, int, Units], Scratch]] = {}


def _mapped(folder: Path, units: Units) -> Scratch:
    """The files of a block, mapped by this worker once: pages that are touched anew cost as much as what is done."""
    file = (folder / "head.npy").stat()  # as long as it is mapped no other file has its number
    made = (file.st_dev, file.st_ino, units)
    if folder not in _known or _known[folder][0] != made:
        for other in [known for known in _known if known.parent != folder.parent]:
            del _known[other]  # of a run before
        _known[folder] = (made, _map(folder, units))
    return _known[folder][1]


def _map(folder: Path, units: Units) -> Scratch:
    def mapped(name: str, mode: Any = "r") -> Any:
        return np.load(folder / f"{name}.npy", mmap_mode=mode)

    arrays = json.loads((folder / "arrays.json").read_text())
    vectors, norms = mapped("vectors"), np.load(folder / "norms.npy")
    names = [field.name for field in fields(Candidates) if field.name != "vectors"]
    traits = {name: np.load(folder / f"{name}.npy") for name in names}
    stored = Candidates(vectors=vectors, **traits)
    traits["powered"] = stored.powered / units.powered
    candidates = BlockCandidates(
        vectors=mapped("points") if "points" in arrays else vectors,
        **traits,
        factor=(np.load(folder / "factor.npy") / units.length).astype(np.float32),
        norms=(norms / units.length**2).clip(max=_LARGEST).astype(np.float32),
        twin=np.load(folder / "twin.npy") if "twin" in arrays else None,
    )
    state = {name: mapped(f"state-{name}", "r+") for name in (*STATE, *MARKS)}
    return Scratch(candidates, state, stored, float(np.sqrt(norms.max())), mapped("head", "r+"))
