"""Files on a disk, HDFS or object storage behind one small class, through pyarrow's filesystems."""

import fnmatch
import functools
import os
import re
import uuid
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

_WILDCARDS = "*?["


@functools.lru_cache(maxsize=64)
def _filesystem(root: str) -> fs.FileSystem:
    """The filesystem of a URI's scheme and authority; the local one for a plain path."""
    return fs.FileSystem.from_uri(root)[0] if "://" in root else fs.LocalFileSystem()


@dataclass(frozen=True)
class Location:
    """A file or folder, named by a local path or by a URI such as ``s3://bucket/key`` or ``hdfs://host/path``.

    Only the text travels to executors; the connection is opened where it is used.
    """

    uri: str

    @staticmethod
    def of(path: str) -> "Location":
        """The location a user named; a local path is made absolute and its links are followed."""
        path = re.sub(r"^file:(//localhost(?=/)|//)?", "", path)
        return Location(path.rstrip("/") if "://" in path else os.path.realpath(path))

    def __truediv__(self, name: str) -> "Location":
        return Location(f"{self.uri}/{name}")

    def __str__(self) -> str:
        return self.uri

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.uri.rsplit("/", 1)[-1]

    @property
    def parent(self) -> "Location":
        """The folder it lies in."""
        return Location(self.uri.rsplit("/", 1)[0])

    @property
    def filesystem(self) -> fs.FileSystem:
        """The filesystem it is on."""
        scheme, separator, rest = self.uri.partition("://")
        return _filesystem(f"{scheme}://{rest.split('/', 1)[0]}" if separator else "")

    @property
    def path(self) -> str:
        """The path that the filesystem knows it by."""
        scheme, separator, rest = self.uri.partition("://")
        if not separator:
            return self.uri
        return "/" + rest.partition("/")[2] if scheme in ("hdfs", "viewfs") else rest

    def _at(self, path: str) -> "Location":
        """Another path on the same filesystem."""
        return Location(self.uri[: len(self.uri) - len(self.path)] + path)

    def kind(self) -> fs.FileType:
        """Whether it is a file, a folder, or not there."""
        return self.filesystem.get_file_info(self.path).type

    def exists(self) -> bool:
        """Whether a file or folder is there."""
        return bool(self.kind() != fs.FileType.NotFound)

    def entries(self) -> list["Location"]:
        """What lies directly in the folder, sorted by name; nothing when it is not there."""
        selector = fs.FileSelector(self.path, allow_not_found=True)
        return sorted((self._at(info.path) for info in self.filesystem.get_file_info(selector)), key=str)

    def parquet_files(self) -> list["Location"]:
        """The data files meant by a file, a folder (searched to its bottom) or a glob, sorted.

        As in Spark, names that start with ``_`` or ``.`` below the folder are not data.
        """
        if self.is_glob:
            return [file for file in self.listing_root._walk() if self.contains(file)]
        if self.kind() == fs.FileType.File:
            return [self]
        return self._walk()

    @property
    def is_glob(self) -> bool:
        """Whether the path names nothing but has a wildcard: ``*``, ``?`` or ``[``; one never crosses a folder."""
        return any(mark in self.path for mark in _WILDCARDS) and not self.exists()

    def contains(self, other: "Location") -> bool:
        """Whether the other lies in this folder, or is it; for a glob, in a folder that it names."""
        parts, outer = other.uri.split("/"), self.uri.rstrip("/").split("/")
        if len(parts) < len(outer):
            return False
        pairs = zip(parts, outer, strict=False)
        return all(fnmatch.fnmatchcase(*pair) for pair in pairs) if self.is_glob else parts[: len(outer)] == outer

    @property
    def listing_root(self) -> "Location":
        """The folder that a listing of the location starts from."""
        if not self.is_glob:
            return self
        fixed = self.path[: min(self.path.find(mark) for mark in _WILDCARDS if mark in self.path)]
        return self._at(fixed.rsplit("/", 1)[0] or "/")

    def _walk(self) -> list["Location"]:
        """The data files below the folder, sorted."""
        selector = fs.FileSelector(self.path, recursive=True, allow_not_found=True)
        skip = len(self.path.rstrip("/")) + 1
        paths = sorted(
            info.path
            for info in self.filesystem.get_file_info(selector)
            if info.type != fs.FileType.Directory
            and not any(part.startswith(("_", ".")) for part in info.path[skip:].split("/"))
        )
        return [self._at(path) for path in paths]

    def make_folder(self, private: bool = False) -> None:
        """Create the folder and those above it; a ``private`` one on this machine is for its owner alone."""
        self.filesystem.create_dir(self.path, recursive=True)
        if private and self.is_local:
            os.chmod(self.path, 0o700)

    @property
    def is_local(self) -> bool:
        """Whether it is on a file system of this machine."""
        return "://" not in self.uri

    @property
    def is_object(self) -> bool:
        """Whether it is on object storage, where a write is seen when it is complete and nothing can be renamed."""
        return self.filesystem.type_name in ("s3", "gcs", "abfs")

    def size_and_time(self) -> tuple[int, int]:
        """Bytes of the file, and when it was last written, in ns."""
        info = self.filesystem.get_file_info(self.path)
        return int(info.size or 0), int(info.mtime_ns or 0)

    def modified(self) -> float:
        """When the file was last written, in seconds; raise FileNotFoundError when it is not there."""
        info = self.filesystem.get_file_info(self.path)
        if info.mtime_ns is None:
            raise FileNotFoundError(self.uri)
        return float(info.mtime_ns) * 1e-9

    def delete(self) -> None:
        """Remove the file, or the folder and all in it; nothing happens when it is not there."""
        kind = self.kind()
        if kind == fs.FileType.Directory:
            self.filesystem.delete_dir(self.path)
        elif kind == fs.FileType.File:
            self.filesystem.delete_file(self.path)

    def move_to(self, target: "Location") -> None:
        """Rename the file or folder within its filesystem.

        On object storage file by file, so that what was cut in the middle is done again with what is left.
        """
        if not self.is_object or self.kind() == fs.FileType.File:
            self.filesystem.move(self.path, target.path)
            return
        for file in self.filesystem.get_file_info(fs.FileSelector(self.path, recursive=True)):
            if file.type == fs.FileType.File:
                self.filesystem.move(file.path, target.path + file.path[len(self.path) :])
        self.delete()

    def write_bytes(self, content: bytes | pa.Buffer) -> None:
        """Write a file that readers see whole or not at all."""
        place = self if self.is_object else self._temporary()
        with self.filesystem.open_output_stream(place.path) as stream:
            stream.write(content)
        if place != self:
            place.move_to(self)

    def write_parquet(self, table: pa.Table, **options: Any) -> None:
        """Write a Parquet file that readers see whole or not at all."""
        content = pa.BufferOutputStream()  # a table that cannot be written leaves nothing behind
        pq.write_table(table, content, write_page_checksum=True, **options)
        self.write_bytes(content.getvalue())

    def read_bytes(self) -> bytes:
        """The content of the file."""
        with self.filesystem.open_input_stream(self.path) as stream:
            return bytes(stream.read())

    def read_parquet(self, columns: list[str] | None = None) -> pa.Table:
        """The Parquet file as a table, or some of its columns."""
        with pq.ParquetFile(self.path, filesystem=self.filesystem, page_checksum_verification=True) as file:
            return file.read(columns)

    def _temporary(self) -> "Location":
        """A name beside it that no other writer uses and no reader looks at."""
        folder, _, name = self.uri.rpartition("/")
        return Location(f"{folder}/.{name}.{uuid.uuid4().hex}")
