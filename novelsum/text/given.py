"""Vectors that exist already, in files of their own: row i of all belongs to record i of all.

``.npy`` holds n vectors (n, D); ``.json`` is the layout that the authors of NovelSum released: a folder of numbered
files, each an array of vectors, beside a folder of files of the same names with the texts. Files whose names are all
numbers come in the order of these, as theirs do (their ``load_dir_data``), others by name. Nothing of a file is held
but what is read of it at once.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from novelsum.errors import InputError
from novelsum.files.location import Location, Stamp
from novelsum.files.source import Look, look, require_unchanged
from novelsum.rows import Integers
from novelsum.text.records import Stretch, TextFile, read_records, told_number

_KINDS = (".npy", ".json")
_WORDS = "file of vectors (.npy or .json)"
_READ_BYTES = 16 << 20
_MARKED = 1024

T = TypeVar("T")
Matrix = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class VectorFile:
    """A file of vectors of one dimension as the run saw it first.

    ``dtype``: what they are handed out in, float32 or float64. ``rows``: how many, None in JSON that is not
    :func:`counted` yet; ``marks``: the bytes that vectors 0, 1024, 2048 … begin at there. ``stored``: their type in
    ``.npy``, from byte ``start`` on.
    """

    location: Location
    stamp: Stamp
    dimension: int
    dtype: str
    rows: int | None = None
    stored: str = ""
    start: int = 0
    marks: tuple[int, ...] = ()


def look_for_vectors(path: str, output: Location | None = None) -> Look:
    """The first look at a file or a folder of vectors; raise InputError where there is none, or of both kinds."""
    seen = look(path, output, _WORDS)
    kept = [file for file in seen.files if _ending(file) in _KINDS]
    if not kept:
        raise InputError(f"{path} holds no {_WORDS}; name one or a folder of them")
    endings = {_ending(file) for file in kept}
    if len(endings) > 1:
        raise InputError(f"{path} holds .npy and .json files; name those of one kind with a glob in quotes")
    return seen.only(kept)


def in_order(files: Iterable[T], location: Any = lambda file: file.location) -> list[T]:
    """Files in the order of their numbers, where the names of all are different numbers; else as they are."""
    found = list(files)
    stems = [location(file).name.partition(".")[0] for file in found]
    if all(stem.isdecimal() for stem in stems) and len(set(map(int, stems))) == len(stems):
        return [file for _, file in sorted(zip(map(int, stems), found, strict=True), key=lambda pair: pair[0])]
    return found


def open_vectors(seen: Look) -> list[VectorFile]:
    """The files in order, by their headers or first vectors; raise InputError where they cannot be what was meant."""
    files = in_order(map(_opened, seen.files, seen.stamps))
    held = [file for file in files if file.rows != 0]
    if not held:
        raise InputError(f"{seen.path} holds no vectors in its {len(files)} file(s)")
    for file in held:
        if file.dimension != held[0].dimension:
            raise InputError(
                f"{file.location} has vectors of {file.dimension} dimensions, {held[0].location} of "
                f"{held[0].dimension}; embed all records with one model"
            )
    return files


def _ending(file: Location) -> str:
    return "." + file.name.lower().rpartition(".")[2]


def _opened(location: Location, stamp: Stamp) -> VectorFile:
    if _ending(location) == ".npy":
        return _opened_npy(location, stamp)
    first = next(iter(read_records(Stretch(_text_file(location, stamp)))), None)
    if first is None:
        return VectorFile(location, stamp, 0, "float32", 0)
    vector = _vector(first.raw, f"element 1 of {location}")
    exact = (vector.astype(np.float32) == vector) | np.isnan(vector)
    return VectorFile(location, stamp, len(vector), "float32" if exact.all() else "float64")


def _opened_npy(location: Location, stamp: Stamp) -> VectorFile:
    require_unchanged(location, stamp)
    with location.filesystem.open_input_file(location.path) as file:
        try:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, by_columns, dtype = read(file)
        except ValueError as error:
            raise InputError(f"{location} is no NumPy file ({error}); write it with numpy.save") from None
        start = file.tell()
    if len(shape) != 2 or by_columns or dtype.kind != "f" or dtype.itemsize > 8:
        how = " by columns" if by_columns else ""
        raise InputError(
            f"{location} holds an array of shape {shape} and type {dtype}{how}, expected (n, D) of float16, float32 or "
            "float64 by rows; save numpy.ascontiguousarray of that"
        )
    rows, dimension = shape
    if start + rows * dimension * dtype.itemsize > stamp.size:
        raise InputError(f"{location} is not whole, it has {stamp.size} bytes; write it again")
    wide = "float64" if dtype.itemsize == 8 else "float32"
    return VectorFile(location, stamp, dimension, wide, rows, dtype.str, start)


def _text_file(location: Location, stamp: Stamp) -> TextFile:
    return TextFile(location, stamp, "array")


# --- reading ----------------------------------------------------------------------------------------------


def counted(file: VectorFile) -> VectorFile:
    """The file with its number of vectors; JSON is read to its end for that, and marked on the way."""
    if file.rows is not None:
        return file
    rows, marks = 0, []
    for rows, record in enumerate(read_records(Stretch(_text_file(file.location, file.stamp))), start=1):
        if rows % _MARKED == 1:
            marks.append(record.offset)
    return replace(file, rows=rows, marks=tuple(marks))


@dataclass(frozen=True)
class Given:
    """The vectors of all files, one after the other; ``files`` are counted."""

    files: tuple[VectorFile, ...]

    @property
    def rows(self) -> int:
        """How many vectors there are."""
        return sum(file.rows or 0 for file in self.files)

    @property
    def dimension(self) -> int:
        """How many numbers each has."""
        return max(file.dimension for file in self.files)

    @property
    def dtype(self) -> str:
        """float64 where a file has doubles, else float32."""
        return max(file.dtype for file in self.files if file.rows)

    def vectors(self, rows: Integers) -> Matrix:
        """The vectors (m, D) of some rows (m,), ascending. What lies between them is read too.

        Raises InputError where one is none, or a file is not what the run saw first.
        """
        found = np.empty((len(rows), self.dimension), dtype=self.dtype)
        done = begin = 0
        for file in self.files if len(rows) else ():
            held = file.rows or 0
            first, stop = max(int(rows[0]) - begin, 0), min(int(rows[-1]) + 1 - begin, held)
            if first < stop:
                at = begin + first
                for piece in (_read_npy if file.stored else _read_json)(file, first, stop):
                    wanted = rows[done : np.searchsorted(rows, at + len(piece))] - at
                    found[done : done + len(wanted)] = piece[wanted]
                    done, at = done + len(wanted), at + len(piece)
            begin += held
        return found


def _read_npy(file: VectorFile, first: int, stop: int) -> Iterator[Matrix]:
    stored = np.dtype(file.stored)
    size = stored.itemsize * file.dimension
    most = max(1, _READ_BYTES // max(1, size))
    require_unchanged(file.location, file.stamp)
    with file.location.filesystem.open_input_file(file.location.path) as opened:
        for row in range(first, stop, most):
            rows = min(most, stop - row)
            content = opened.read_at(rows * size, file.start + row * size)
            yield np.frombuffer(content, stored).reshape(rows, file.dimension)
    require_unchanged(file.location, file.stamp)


def _read_json(file: VectorFile, first: int, stop: int) -> Iterator[Matrix]:
    text = _text_file(file.location, file.stamp)
    most = max(1, _READ_BYTES // (8 * max(1, file.dimension)))
    mark = first // _MARKED
    held: list[Matrix] = []
    start = file.marks[mark] if mark else 0
    for place, record in enumerate(read_records(Stretch(text, start, None, mark * _MARKED + 1)), mark * _MARKED):
        if place >= first:
            where = told_number(text, place + 1)
            vector = _vector(record.raw, where)
            if len(vector) != file.dimension:
                raise InputError(
                    f"{where} has {len(vector)} numbers, the first vector {file.dimension}; embed all records with one "
                    "model"
                )
            held.append(vector)
        if len(held) == most or (held and place + 1 == stop):
            yield np.stack(held)
            held = []
        if place + 1 == stop:
            break


def _vector(raw: bytes, where: str) -> NDArray[np.float64]:
    try:
        value = json.loads(raw)
        vector = np.array(value, dtype=np.float64)
    except (ValueError, TypeError, RecursionError):
        vector, value = np.zeros(0), None
    if not isinstance(value, list) or vector.ndim != 1:
        raise InputError(f"{where} is no list of numbers, it begins with {raw[:20]!r}; --embeddings is to name vectors")
    return vector


# --- what belongs together --------------------------------------------------------------------------------


def require_as_many(
    path: str, records: Sequence[tuple[Location, int]], vectors: Sequence[tuple[Location, int]]
) -> None:
    """Raise InputError where there are not as many vectors as records, in all and in files of the same name."""
    of_name = {location.name: (location, number) for location, number in vectors}
    same = len(records) == len(vectors) and {location.name for location, _ in records} == set(of_name)
    for location, number in records if same else ():
        other, found = of_name[location.name]
        if number != found:
            raise InputError(
                f"{location} has {number} records and {other} {found} vectors; write both from the same texts"
            )
    total, found = (sum(number for _, number in held) for held in (records, vectors))
    if total != found:
        raise InputError(
            f"--embeddings {path} has {found} vectors, one is needed for each of the {total} records; write both from "
            "the same texts"
        )


# --- ids without texts ------------------------------------------------------------------------------------


def look_for_ids(path: str) -> Look:
    """The first look at a file of ids; raise InputError where there is none."""
    seen = look(path, None, "file of ids (.npy, .txt, .json or .jsonl)")
    if seen.files != (Location.of(path),):
        raise InputError(f"--ids {path} must be one file: .npy, .txt, .json or .jsonl")
    return seen


def read_ids(path: str) -> pa.Array:
    """Ids (n,), strings or int64, of a ``.npy``, a ``.txt`` or ``.jsonl`` with one a line, or a JSON array of them."""
    location, seen = Location.of(path), look_for_ids(path)
    ending, stamp = _ending(location), seen.stamps[0]
    if ending == ".npy":
        with location.filesystem.open_input_file(location.path) as file:
            try:
                values = np.lib.format.read_array(file, allow_pickle=False)
            except ValueError as error:
                raise InputError(f"--ids {path} is no NumPy file of numbers or texts ({error}); save such") from None
        if values.ndim != 1 or values.dtype.kind not in "iuU":
            raise InputError(f"--ids {path} has shape {values.shape} and type {values.dtype}, expected (n,) ids")
        ids: list[Any] = values.tolist()
    elif ending == ".txt":
        text = location.read_bytes().removeprefix(b"\xef\xbb\xbf")
        try:
            ids = [line.removesuffix("\r") for line in text.decode().removesuffix("\n").split("\n")]
        except UnicodeDecodeError as error:
            raise InputError(f"--ids {path} is not in UTF-8 ({error}); write it so") from None
    elif ending in (".json", ".jsonl"):
        kind = TextFile(location, stamp, "array" if ending == ".json" else "lines")
        ids = []
        for record in read_records(Stretch(kind)):
            try:
                ids.append(json.loads(record.raw))
            except ValueError as error:
                where = told_number(kind, record.number)
                raise InputError(f"--ids {where} is not JSON ({error}); write it again") from None
    else:
        raise InputError(f"--ids {path} must end in .npy, .txt, .json or .jsonl")
    kinds = {type(id_) for id_ in ids}
    if kinds not in ({int}, {str}):
        raise InputError(f"--ids {path} must hold strings or whole numbers, all of one kind, at least one")
    try:
        return pa.array(ids, pa.int64() if kinds == {int} else pa.string())
    except (OverflowError, UnicodeEncodeError) as error:
        raise InputError(f"--ids {path} holds an id that is none ({error}); write another") from None
