"""Files on a disk, HDFS or object storage behind one small class, through pyarrow's filesystems."""

import errno
import fnmatch
import functools
import json
import os
import re
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from novelsum.errors import DamageError, RunError, first_line

T = TypeVar("T")

MANIFEST = "_MANIFEST.json"
"""What a job writes last, beside its results."""
REJECTED = "rejected"
"""The folder beside them where it sets bad rows aside."""
REJECTED_NEAR, MAP = "rejected_near", "map"
"""Folders with what is nearest to each candidate that was left out, and where all candidates lie on the map."""
DUPLICATES = "duplicates"
"""The folder beside them where it lists the rows that were dropped as copies of others."""
NO_DATA = (
    *(REJECTED, DUPLICATES, REJECTED_NEAR, MAP, "metrics.json", "report.html", "report.json"),
    *("diversity.json", "diversity.html"),
)
"""Results of jobs that are never the input of another."""

_WILDCARDS = "*?["
_VERSION = ("etag", "versionid", "generation", "last-modified", "updated")
"""What object stores call that which differs between two writes of a name."""
_AZURE = ("abfs", "abfss")
_GOOGLE = ("gs", "gcs")
_GOOGLE_RETRIES_SECONDS = 60
"""How long the client tries a request again; left to itself it goes on for a quarter of an hour without a word."""


@functools.lru_cache(maxsize=64)
def _filesystem(root: str) -> fs.FileSystem:
    """The filesystem of a URI's scheme and authority; the local one for a plain path."""
    scheme, separator, authority = root.partition("://")
    if not separator:
        return fs.LocalFileSystem()
    if scheme in _AZURE:
        return _azure(authority.partition("@")[2])
    if scheme in _GOOGLE:
        return fs.FileSystem.from_uri(f"{root}?retry_limit_seconds={_GOOGLE_RETRIES_SECONDS}")[0]
    return fs.FileSystem.from_uri(root)[0]


def _azure(host: str) -> fs.FileSystem:
    """The storage account of a host such as ``account.dfs.core.windows.net``, with what the environment says of it."""
    account, _, domain = host.partition(".")
    endpoint = urlsplit(os.environ.get("AZURE_STORAGE_ENDPOINT", ""))
    return fs.AzureFileSystem(
        account,
        account_key=os.environ.get("AZURE_STORAGE_KEY"),
        sas_token=os.environ.get("AZURE_STORAGE_SAS_TOKEN"),
        blob_storage_authority=endpoint.netloc or "." + domain.replace("dfs.", "blob.", 1),
        dfs_storage_authority=endpoint.netloc or "." + domain.replace("blob.", "dfs.", 1),
        blob_storage_scheme=endpoint.scheme or "https",
        dfs_storage_scheme=endpoint.scheme or "https",
    )


@dataclass(frozen=True)
class Stamp:
    """What tells a file from one written later under its name: bytes, and time or what the store has as a version."""

    size: int
    written: str

    @staticmethod
    def of(info: fs.FileInfo) -> "Stamp":
        """What a file system that keeps no versions says of a file, in a listing or when it is asked."""
        return Stamp(int(info.size or 0), str(info.mtime_ns or 0))


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
        return _filesystem(self._parts[0])

    @property
    def path(self) -> str:
        """The path that the filesystem knows it by."""
        _, bucket, below = self._parts
        return bucket + below

    @property
    def _parts(self) -> tuple[str, str, str]:
        """Scheme and authority, the bucket that the filesystem's paths begin with, if any, and the rest."""
        scheme, separator, rest = self.uri.partition("://")
        if not separator:
            return "", "", self.uri
        authority, slash, below = rest.partition("/")
        if scheme in ("hdfs", "viewfs"):
            return f"{scheme}://{authority}", "", f"/{below}"
        bucket = authority.partition("@")[0] if scheme in _AZURE else authority.rpartition("@")[2]
        return f"{scheme}://{authority}", bucket, slash + below

    def _at(self, path: str) -> "Location":
        """Another path on the same filesystem."""
        root, bucket, _ = self._parts
        return Location(root + path[len(bucket) :])

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

    def all_files(self) -> dict["Location", Stamp]:
        """The file; or all below the folder, to its bottom; for a glob, below the folder its listing starts from.

        Each with what the listing says of it, which on object storage is no version.
        """
        if not self.is_glob:
            info = self.filesystem.get_file_info(self.path)
            if info.type == fs.FileType.File:
                return {self: Stamp.of(info)}
        root = self.listing_root
        selector = fs.FileSelector(root.path, recursive=True, allow_not_found=True)
        found = [info for info in root.filesystem.get_file_info(selector) if info.type != fs.FileType.Directory]
        return {root._at(info.path): Stamp.of(info) for info in sorted(found, key=lambda info: info.path)}

    def parquet_files(self, among: Iterable["Location"]) -> list["Location"]:
        """The data files meant by a file, a folder or a glob, of :meth:`all_files`.

        As in Spark, names that start with ``_`` or ``.`` below the folder are not data; checksums (``.crc``) are none,
        nor is what a job has written to be looked at, or set aside, beside its manifest.
        """
        is_glob, above = self.is_glob, self.listing_root.uri.rstrip("/").count("/") + 1
        results = {file.uri.removesuffix(f"/{MANIFEST}") for file in among if file.name == MANIFEST}

        def is_data(file: Location) -> bool:
            parts = file.uri.split("/")
            return not file.name.endswith(".crc") and not any(
                (part.startswith(("_", ".")) and place >= above)
                or (part in NO_DATA and "/".join(parts[:place]) in results)
                for place, part in enumerate(parts)
            )

        return [file for file in among if file == self or (is_data(file) and self._contains(file, is_glob))]

    @property
    def is_glob(self) -> bool:
        """Whether the path names nothing but has a wildcard: ``*``, ``?`` or ``[``; one never crosses a folder."""
        return any(mark in self.path for mark in _WILDCARDS) and not self.exists()

    def contains(self, other: "Location") -> bool:
        """Whether the other lies in this folder, or is it; for a glob, in a folder that it names."""
        return self._contains(other, self.is_glob)

    def _contains(self, other: "Location", is_glob: bool) -> bool:
        parts, outer = other.uri.split("/"), self.uri.rstrip("/").split("/")
        if len(parts) < len(outer):
            return False
        pairs = zip(parts, outer, strict=False)
        return all(fnmatch.fnmatchcase(*pair) for pair in pairs) if is_glob else parts[: len(outer)] == outer

    @property
    def listing_root(self) -> "Location":
        """The folder that a listing of the location starts from."""
        if not self.is_glob:
            return self
        fixed = self.path[: min(self.path.find(mark) for mark in _WILDCARDS if mark in self.path)]
        return self._at(fixed.rsplit("/", 1)[0] or "/")

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

    def sizes(self) -> dict[str, int]:
        """Bytes of every file in the folder, by its path in it; what is being written has a hidden name and is none."""
        selector = fs.FileSelector(self.path, recursive=True, allow_not_found=True)
        found = [info for info in self.filesystem.get_file_info(selector) if info.type == fs.FileType.File]
        skip = len(self.path.rstrip("/")) + 1
        return {info.path[skip:]: int(info.size) for info in found if not info.base_name.startswith(".")}

    def stamp(self) -> Stamp:
        """The stamp of the file as it is now; raise FileNotFoundError when it is not there."""
        if self.is_object:
            with self.filesystem.open_input_file(self.path) as file:
                return self.stamp_of(file)
        info = self.filesystem.get_file_info(self.path)
        if info.type == fs.FileType.NotFound:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.uri)
        return Stamp.of(info)

    def stamp_of(self, opened: pa.NativeFile) -> Stamp:
        """The stamp of the object when it was opened; nothing is asked again where the store told a version then."""
        said = {name.lower(): str(value) for name, value in opened.metadata().items()}
        version = " ".join(said[name] for name in _VERSION if name in said)
        if version:
            return Stamp(int(opened.size()), version)
        return Stamp.of(self.filesystem.get_file_info(self.path))

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
            with suppress(FileNotFoundError):  # another was first
                self.filesystem.delete_file(self.path)

    def delete_if_empty(self) -> None:
        """Remove the folder if nothing lies in it; on a disk at one stroke, so that nothing is lost that just comes."""
        if self.is_local:
            with suppress(OSError):
                os.rmdir(self.path)
        elif not self.entries():
            self.delete()

    def move_to(self, target: "Location") -> None:
        """Rename the file or folder within its filesystem.

        On object storage file by file, so that what was cut in the middle is done again with what is left.
        """
        if not self.is_object:
            self.filesystem.move(self.path, target.path)
            return
        if self.kind() == fs.FileType.File:
            self._move_object(self.path, target.path)
            return
        for file in self.filesystem.get_file_info(fs.FileSelector(self.path, recursive=True)):
            if file.type == fs.FileType.File:
                self._move_object(file.path, target.path + file.path[len(self.path) :])
        self.delete()

    def _move_object(self, source: str, target: str) -> None:
        try:
            self.filesystem.move(source, target)
        except NotImplementedError:  # an account of Azure without hierarchical names
            self.filesystem.copy_file(source, target)
            self.filesystem.delete_file(source)

    @contextmanager
    def writing(self) -> Iterator[pa.NativeFile]:
        """A stream to a file that readers see whole or not at all, whoever else writes it at the same time.

        Nothing is left of one that fails. An object that is closed is complete, so it goes up only when it is whole.
        """
        if self.is_object:
            content = pa.BufferOutputStream()
            yield content
            with self._named(), self.filesystem.open_output_stream(self.path) as stream:
                stream.write(content.getvalue())
            return
        place = self._temporary()
        try:
            with self._named(), self.filesystem.open_output_stream(place.path) as stream:
                yield stream
            place.move_to(self)
        except BaseException:
            place.delete()
            raise

    def write_bytes(self, content: bytes | pa.Buffer) -> None:
        """Write a file that readers see whole or not at all."""
        with self.writing() as stream:
            stream.write(content)

    def write_parquet(self, table: pa.Table, **options: Any) -> None:
        """Write a Parquet file that readers see whole or not at all."""
        with self.writing() as stream:
            pq.write_table(table, stream, write_page_checksum=True, **options)

    def read_bytes(self) -> bytes:
        """The content of the file."""
        with self._named(), self.filesystem.open_input_stream(self.path) as stream:
            return bytes(stream.read())

    def read_json(self) -> dict[str, Any]:
        """The JSON object in the file; raise DamageError when it holds none."""
        try:
            content = json.loads(self.read_bytes())
        except ValueError as error:
            raise DamageError(f"{self} is damaged ({first_line(error)}); run again to start over") from error
        if not isinstance(content, dict):
            raise DamageError(f"{self} is damaged (no JSON object); run again to start over")
        return content

    def read_parquet(self, columns: list[str] | None = None) -> pa.Table:
        """The Parquet file of a run as a table, or some of its columns.

        Raises DamageError where it is damaged, and RunError when it is missing: the next try finds out what else is.
        """
        try:
            return self.parse(lambda file: file.read(columns))
        except FileNotFoundError as error:
            raise RunError(f"{self} is missing; run again to make what is lost anew") from error

    def opened(self, object_: pa.NativeFile | None = None) -> pq.ParquetFile:
        """The Parquet file, open, from an object that was opened before if there is one.

        Its pages are held against their checksums where it has any.
        """
        if object_ is not None:
            return pq.ParquetFile(object_, page_checksum_verification=True)
        return pq.ParquetFile(self.path, filesystem=self.filesystem, page_checksum_verification=True)

    def parse(self, read: Callable[[pq.ParquetFile], T], object_: pa.NativeFile | None = None) -> T:
        """What ``read`` makes of the :meth:`opened` file; raise as :meth:`fault` says, or FileNotFoundError."""
        try:
            with self.opened(object_) as file:
                return read(file)
        except FileNotFoundError:
            raise
        except (OSError, pa.ArrowException) as error:
            raise self.fault(error, read) from None

    def fault(self, error: Exception, read: Callable[[pq.ParquetFile], Any]) -> RunError:
        """What an error that ``read`` came upon is told as: DamageError where the contents are at fault, else RunError.

        pyarrow says OSError of both. Where the system has given no number, the file is read again by an object that
        sees what the file system says: contents that came whole and cannot be parsed are damaged.
        """
        if getattr(error, "errno", None) or isinstance(error, MemoryError):
            return self.failure(error)
        watched = _Watched(self)
        try:
            with pq.ParquetFile(pa.PythonFile(watched, "r"), page_checksum_verification=True) as file:
                read(file)
        except (OSError, pa.ArrowException):
            if watched.failed is None:
                reason = first_line(error)
                return DamageError(f"{self} is damaged ({reason}); run again to start over", reason)
        return self.failure(watched.failed or error)

    def failure(self, error: Exception) -> RunError:
        """What the system or the store says of the file, which tells nothing of its contents."""
        said = "permission denied" if isinstance(error, PermissionError) else first_line(error)
        return RunError(f"{self} cannot be read: {said}; run again to go on once that is mended")

    @contextmanager
    def _named(self) -> Iterator[None]:
        """The system does not say which file it could not read or write any further: name it."""
        try:
            yield
        except OSError as error:
            if error.errno and self.name not in str(error):
                raise OSError(error.errno, os.strerror(error.errno), self.uri) from None
            raise

    def _temporary(self) -> "Location":
        """A name beside it that no other writer uses and no reader looks at."""
        folder, _, name = self.uri.rpartition("/")
        return Location(f"{folder}/.{name}.{uuid.uuid4().hex}")


class _Watched:
    """A file as Python sees it, which keeps what the file system said when it could not be read."""

    def __init__(self, location: Location) -> None:
        self.failed: Exception | None = None
        self.closed = False
        self._location = location

    @functools.cached_property
    def _file(self) -> pa.NativeFile:
        return self._location.filesystem.open_input_file(self._location.path)

    def _watch(self, use: Callable[[], T]) -> T:
        try:
            return use()
        except (OSError, pa.ArrowException) as error:
            self.failed = error
            raise

    def read(self, size: int = -1) -> bytes:
        return self._watch(lambda: bytes(self._file.read(None if size < 0 else size)))

    def seek(self, place: int, whence: int = 0) -> int:
        return int(self._watch(lambda: self._file.seek(place, whence)))

    def tell(self) -> int:
        return int(self._watch(lambda: self._file.tell()))

    def close(self) -> None:
        self.closed = True
        if "_file" in vars(self):
            self._file.close()
