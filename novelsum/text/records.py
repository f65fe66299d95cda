"""Records as they lie in files: JSON lines, JSON arrays, Parquet rows; each with its bytes as they came in.

A file is told by its content and name (:func:`open_files`). What a task reads of it is a :class:`Stretch`: bytes of
JSON, as they are once decompressed, or rows of Parquet. A file of JSON lines can be cut anywhere: a line belongs to the
stretch that it begins in. An array must be read once from its beginning to know where its elements lie. No more of a
file is held than some MiB and the longest record.
"""

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from novelsum.errors import InputError, first_line
from novelsum.files.location import Location, Stamp
from novelsum.files.source import Look, look, require_unchanged

Format = Literal["lines", "array", "parquet"]

STRETCH_BYTES = 32 << 20
"""JSON lines are cut into stretches of this many bytes."""
_READ_BYTES = 1 << 20
_READ_ROWS = 8192
_LINES, _JSON, _PARQUET = (".jsonl", ".ndjson"), (".json",), (".parquet",)
_CODECS = {".gz": "gzip", ".zst": "zstd"}
_BOM = b"\xef\xbb\xbf"
_SPACE = b" \t\r\n"
_KINDS = ".jsonl, .ndjson, .json or .parquet, the first three perhaps with .gz or .zst"


@dataclass(frozen=True)
class TextFile:
    """A file of records as the run saw it first."""

    location: Location
    stamp: Stamp
    format: Format
    codec: str | None = None


@dataclass(frozen=True)
class Stretch:
    """Records that lie together in a file: from byte or row ``start`` to before ``stop``, to its end without one.

    ``first``: the number of its first line or element in the file, from 1, or row, from 0. Lines that are ``cut`` at
    any byte begin after the next break, and are numbered from 1.
    """

    file: TextFile
    start: int = 0
    stop: int | None = None
    first: int = 1
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Record:
    """A record of JSON: its ``number`` in the file, counted from the first of its stretch, the byte it begins at, and
    its bytes: a line without its break, or exactly the element of an array.
    """

    number: int
    offset: int
    raw: bytes

    @property
    def end(self) -> int:
        """The byte after its last."""
        return self.offset + len(self.raw)

    @property
    def is_empty(self) -> bool:
        """Whether it is a line with nothing on it."""
        return not self.raw.strip(_SPACE)


def look_for_text(path: str, output: Location | None = None) -> Look:
    """The first look at files of records; of a folder or glob those with an ending that says so.

    Raises InputError where there is none.
    """
    seen = look(path, output, f"file of texts ({_KINDS})")
    named = Location.of(path)
    kept = [file for file in seen.files if file == named or _ending(file)[0] in (*_LINES, *_JSON, *_PARQUET)]
    if not kept:
        raise InputError(f"{path} holds no file of texts ({_KINDS}); name one, a folder of them, or a glob in quotes")
    return seen.only(kept)


def open_files(seen: Look) -> list[TextFile]:
    """The files, each with the format that its content and its name tell. Raises RunError where one cannot be read."""
    with ThreadPoolExecutor(16) as threads:
        return list(threads.map(_opened, seen.files, seen.stamps))


def _ending(file: Location) -> tuple[str, str | None]:
    """The ending of a file's name, and of one that is compressed how it is."""
    name, codec = file.name.lower(), None
    for ending, found in _CODECS.items():
        if name.endswith(ending):
            name, codec = name.removesuffix(ending), found
    return ("." + name.rpartition(".")[2] if "." in name else ""), codec


def _opened(file: Location, stamp: Stamp) -> TextFile:
    ending, codec = _ending(file)
    plain = TextFile(file, stamp, "lines", codec)
    with _told(plain), _stream(plain, 0) as stream:
        begins = bytes(stream.read(4096))
    if begins.startswith(b"PAR1"):
        return TextFile(file, stamp, "parquet")
    if ending in _PARQUET:
        raise InputError(
            f"{file} is no Parquet file, it begins with {begins[:4]!r}; take it out of the input, or name the other "
            "files alone with a glob in quotes"
        )
    is_array = ending not in _LINES and begins.removeprefix(_BOM).lstrip(_SPACE).startswith(b"[")
    return TextFile(file, stamp, "array" if is_array else "lines", codec)


def stretches_of(file: TextFile, size: int | None = None) -> list[Stretch]:
    """What can be read of a file at the same time: lines of about ``size`` bytes, row groups, or all at once.

    Raises InputError where a Parquet file is not whole.
    """
    if file.format == "parquet":
        with _told(file), file.location.opened() as parquet:
            groups = [parquet.metadata.row_group(i).num_rows for i in range(parquet.metadata.num_row_groups)]
        starts = [sum(groups[:i]) for i in range(len(groups))]
        return [Stretch(file, start, start + n, start) for start, n in zip(starts, groups, strict=True) if n]
    if file.format == "array" or file.codec:
        return [Stretch(file)]
    size = size or STRETCH_BYTES
    starts = list(range(0, file.stamp.size, size))
    return [Stretch(file, start, min(start + size, file.stamp.size), cut=start > 0) for start in starts]


def read_records(stretch: Stretch, with_empty: bool = False) -> Iterator[Record]:
    """The records of a stretch of JSON; empty lines are none, but count, and come too where they are wanted.

    Raises InputError where an array is none to its end, and where the file is not what the run saw first; what was
    yielded is that only once the stretch has come to its end.
    """
    file = stretch.file
    with _told(file):
        if file.format == "array":
            yield from _array_records(stretch)
        else:
            yield from _line_records(stretch, with_empty)


def read_batches(stretch: Stretch, columns: list[str] | None = None) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The rows of a stretch of Parquet in batches, each with the number of its first row in the file, from 0."""
    stop = stretch.stop
    with _told(stretch.file), stretch.file.location.opened() as parquet:
        begin = 0
        for index in range(parquet.metadata.num_row_groups):
            row, begin = begin, begin + parquet.metadata.row_group(index).num_rows
            if begin <= stretch.start or (stop is not None and row >= stop):
                continue
            for batch in parquet.iter_batches(_READ_ROWS, row_groups=[index], columns=columns):
                skip = min(max(0, stretch.start - row), len(batch))
                most = len(batch) if stop is None else max(0, min(stop - row, len(batch)))
                if most > skip:
                    yield row + skip, batch.slice(skip, most - skip)
                row += len(batch)
                if stop is not None and row >= stop:
                    break


def column_names(file: TextFile) -> list[str]:
    """The columns of a Parquet file."""
    with _told(file), file.location.opened() as parquet:
        return list(parquet.schema_arrow.names)


# --- lines and elements -----------------------------------------------------------------------------------


def _line_records(stretch: Stretch, with_empty: bool) -> Iterator[Record]:
    stop, number, cut = stretch.stop, stretch.first, stretch.cut
    start = stretch.start - cut  # a line that begins before belongs to the stretch before
    with _stream(stretch.file, start) as stream:
        for offset, line in _lines(stream.read, start):
            if cut:
                cut = False
                continue
            if stop is not None and offset >= stop:
                break
            if offset == 0 and line.startswith(_BOM):
                offset, line = len(_BOM), line[len(_BOM) :]
            if with_empty or line.strip(_SPACE):
                yield Record(number, offset, line)
            number += 1


def _lines(read: Callable[[int], bytes], offset: int) -> Iterator[tuple[int, bytes]]:
    """Each line without its break, ``\\n`` or ``\\r\\n``, and the byte it begins at."""
    held: list[bytes] = []  # of a line that has not ended yet
    while chunk := read(_READ_BYTES):
        first, *others = chunk.split(b"\n")
        held.append(first)
        for following in others:
            line = b"".join(held)
            yield offset, line.removesuffix(b"\r")
            offset += len(line) + 1
            held = [following]
    if last := b"".join(held):
        yield offset, last.removesuffix(b"\r")


_TOKEN = re.compile(
    rb'\[[^"\[\]{}]*\]|\{[^"\[\]{}]*\}'  # whole lists and objects without texts, which may be long lists of numbers
    rb'|"[^"\\]*(?:\\.[^"\\]*)*"|["\[\]{},]',
    re.DOTALL,
)
_QUOTE, _COMMA, _OPENS, _CLOSES = ord('"'), ord(","), b"[{", b"]}"


def _array_records(stretch: Stretch) -> Iterator[Record]:
    file, start, number = stretch.file, stretch.start, stretch.first
    left = None if stretch.stop is None else stretch.stop - start
    with _stream(file, start) as stream:

        def read(size: int) -> bytes:
            nonlocal left
            chunk = bytes(stream.read(size if left is None else min(size, left)))
            left = None if left is None else left - len(chunk)
            return chunk

        if start == 0 and left is None:
            found = _elements(read, *_bracket(file, read), file)
        else:
            found = _elements(read, start, b"", None)
        for offset, raw in found:
            yield Record(number, offset, raw)
            number += 1


def _bracket(file: TextFile, read: Callable[[int], bytes]) -> tuple[int, bytes]:
    """The byte after the bracket that opens the array, and what was read from there."""
    begins = b""
    while not (at := begins.find(b"[") + 1) and (more := read(_READ_BYTES)):
        begins += more
    if not at or begins[: at - 1].removeprefix(_BOM).strip(_SPACE):
        raise InputError(f"{file.location} is no JSON array, it begins with {begins[:20]!r}")
    return at, begins[at:]


def _elements(
    read: Callable[[int], bytes], offset: int, buffer: bytes, whole: TextFile | None
) -> Iterator[tuple[int, bytes]]:
    """Each element of an array and the byte it begins at; of the ``whole`` of a file, or of a piece of it."""
    begin = at = depth = found = 0
    while True:
        for match in _TOKEN.finditer(buffer, at):
            kind = buffer[match.start()]
            if match.end() - match.start() > 1:  # a text, or a list or an object that is whole
                at = match.end()
                continue
            if kind == _QUOTE:  # a text that goes on in what was not read yet
                break
            at = match.end()
            if kind in _OPENS:
                depth += 1
            elif depth and kind in _CLOSES:
                depth -= 1
            elif not depth:
                element = _stripped(offset, buffer, begin, match.start())
                if kind == _COMMA or element[1]:
                    yield element
                    found += 1
                begin = at
                if kind != _COMMA:
                    _require_nothing(whole, buffer[at:] + read(_READ_BYTES))
                    return
        buffer, offset, at, begin = buffer[begin:], offset + begin, at - begin, 0
        more = read(max(_READ_BYTES, len(buffer)))
        if not more:
            break
        buffer += more
    if whole:
        raise InputError(
            f"{whole.location} is not a whole JSON array: it ends within or after record {found + 1}; it may be half "
            "written: write it again or take it out of the input"
        )
    element = _stripped(offset, buffer, 0, len(buffer))
    if element[1]:
        yield element


def _stripped(offset: int, buffer: bytes, begin: int, end: int) -> tuple[int, bytes]:
    raw = buffer[begin:end].lstrip(_SPACE)
    return offset + end - len(raw), raw.rstrip(_SPACE)


def _require_nothing(whole: TextFile | None, rest: bytes) -> None:
    if rest.strip(_SPACE):
        where = f"{whole.location} goes" if whole else "a piece of a JSON array goes"
        raise InputError(
            f"{where} on after its JSON array, with {rest.strip(_SPACE)[:20]!r}; if it holds a record a line, give it "
            "the ending .jsonl"
        )


# --- files ------------------------------------------------------------------------------------------------


@contextmanager
def _stream(file: TextFile, start: int) -> Iterator[pa.NativeFile]:
    """The content of a file from a byte on, counted once it is decompressed."""
    location = file.location
    with location.filesystem.open_input_file(location.path) as plain:
        if file.codec is None:
            plain.seek(start)
            yield plain
            return
        with pa.CompressedInputStream(plain, file.codec) as stream:
            while start > 0:
                skipped = len(stream.read(min(start, _READ_BYTES)))
                if not skipped:
                    break
                start -= skipped
            yield stream


@contextmanager
def _told(file: TextFile) -> Iterator[None]:
    """Whatever is read within is of the file that was seen, or told in a sentence."""
    require_unchanged(file.location, file.stamp)
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        require_unchanged(file.location, file.stamp)
        if isinstance(error, OSError) and error.errno:
            raise file.location.failure(error) from None
        raise InputError(
            f"{file.location} cannot be read to its end ({first_line(error)}); it may be half written: write it "
            "again or take it out of the input"
        ) from None
    require_unchanged(file.location, file.stamp)


def told_number(file: TextFile, number: int) -> str:
    """Where a record is, in words."""
    what: dict[Format, str] = {"lines": "line", "array": "element", "parquet": "row"}
    return f"{what[file.format]} {number} of {file.location}"
