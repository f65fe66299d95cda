"""Delta and Iceberg tables as inputs: the files of the current snapshot, and no others.

The folder of such a table also holds what was deleted, and parts of rows that replaced others; only its log tells
which files count. It is read by the packages ``deltalake`` and ``pyiceberg``, which nothing else needs.
"""

import os
import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
from pyarrow import fs

from novelsum.errors import InputError, RunError
from novelsum.files.location import Location

_METADATA = re.compile(r"v?(\d+)(?:-[^/]*)?(?:\.gz)?\.metadata\.json(?:\.gz)?")
"""The name of a metadata file of Iceberg, with its number."""
_MARK = re.compile(rf"(.*)/(?:_delta_log/[^/]+|metadata/{_METADATA.pattern})")
_MOST_FOLDERS = 20
"""How far above an input the root of a table is looked for."""
_HARMLESS = ("deletionVectors", "columnMapping", "timestampNtz", "v2Checkpoint", "vacuumProtocolCheck")
"""Features of Delta that leave a reader of plain files right, the first two where they are not used."""


@dataclass(frozen=True)
class Snapshot:
    """What a table holds now: its files, and for Iceberg the names of its columns by their ids."""

    root: Location
    format: str
    version: int
    files: list[Location]
    columns: dict[int, str] = field(default_factory=dict)
    mapped: dict[str, int] = field(default_factory=dict)
    """Ids that the table gives to columns of files without any, by name."""
    partitioned_by: frozenset[str] = frozenset()
    """Columns that a file may lack, as all its rows have one value."""

    def for_manifest(self) -> dict[str, Any]:
        """Which snapshot it is."""
        return {"format": self.format, "version": self.version}

    def check_columns(self, file: Location, schema: pa.Schema) -> None:
        """Raise InputError where a file of Iceberg has other names for its columns than the table."""
        if not self.columns:
            return
        for column in schema:
            id_ = (column.metadata or {}).get(b"PARQUET:field_id")
            name = self.columns.get(self.mapped.get(column.name, -1) if id_ is None else int(id_))
            if name != column.name:
                became = "has none of that id" if name is None else f"calls it {name!r}"
                raise InputError(
                    f"{file} has a column {column.name!r}, but the Iceberg table {self.root} {became} now; rewrite its "
                    "data files (rewrite_data_files)"
                )
        for name in self.partitioned_by - set(schema.names):
            raise InputError(
                f"{file} has no column {name!r}, by which the Iceberg table {self.root} is partitioned; rewrite its "
                "data files (rewrite_data_files)"
            )


def snapshot_of(path: str, location: Location) -> Snapshot | None:
    """The table that a path is the root of, or lies in, with those of its files that the path means; None for no table.

    The root of an Iceberg table means its newest metadata file; any other one can be named itself.
    """
    found = _root_of(location)
    if found is None:
        return None
    root, kind = found
    snapshot = _delta(root) if kind == "Delta" else _iceberg(root, location if _is_metadata(location) else None)
    if not snapshot.files:
        raise InputError(f"the {kind} table {root} has no rows in its version {snapshot.version}; write some to it")
    if location == root or _is_metadata(location):
        return snapshot
    files = [file for file in snapshot.files if location.contains(file)]
    if not files:
        raise InputError(
            f"{path} lies in the {kind} table {root}, and no file of its version {snapshot.version} lies there; give "
            "the table itself"
        )
    return Snapshot(**{**vars(snapshot), "files": files})


def refuse_tables_among(path: str, files: list[Location], listed: list[Location]) -> None:
    """Raise InputError where one of the ``files`` meant by a path lies in a table that the path does not name."""
    marks = (_MARK.fullmatch(file.uri) for file in listed)
    roots = {mark[1] for mark in marks if mark}
    for file in files if roots else ():
        folder = file.uri
        while "/" in folder:
            folder = folder.rsplit("/", 1)[0]
            if folder in roots:
                raise InputError(
                    f"{path} means {file}, which belongs to the Delta or Iceberg table {folder}; give that table "
                    "itself, or a path without it"
                )


def _is_metadata(location: Location) -> bool:
    return bool(_METADATA.fullmatch(location.name))


def _root_of(location: Location) -> tuple[Location, str] | None:
    """The nearest folder at or above a path that is a table, and of which format."""
    folder = start = location.listing_root
    for _ in range(_MOST_FOLDERS):
        try:
            log, metadata = folder.filesystem.get_file_info([(folder / n).path for n in ("_delta_log", "metadata")])
            if log.type == fs.FileType.Directory:
                return folder, "Delta"
            if metadata.type == fs.FileType.Directory and any(map(_is_metadata, (folder / "metadata").entries())):
                return folder, "Iceberg"
        except OSError as error:
            if folder == start or not re.search("denied|forbidden|not authorized", str(error), re.IGNORECASE):
                raise
            return None  # who may see only what lies below can have no table above
        above = folder.uri.rpartition("/")[0]
        if not above or above.endswith("/"):
            return None
        folder = Location(above)
    return None


def _missing(root: Location, kind: str, package: str) -> InputError:
    return InputError(
        f"{root} is a {kind} table, in whose folder lie deleted rows too; to read its current version, pip install "
        f"{package}"
    )


def _plain(error: Exception) -> str:
    """What an error says, on one line."""
    return " ".join(re.sub(r"\x1b\[\d*m|↳", " ", str(error)).split()).rstrip(". ") or type(error).__name__


# --- Delta ------------------------------------------------------------------------------------------------


def _delta(root: Location) -> Snapshot:
    try:
        from deltalake import DeltaTable
        from deltalake.exceptions import DeltaError
    except ImportError:
        raise _missing(root, "Delta", "deltalake") from None
    try:
        table = DeltaTable(root.uri, storage_options=_delta_options(root))
        _check_delta_features(root, table)
        paths = pa.table(table.get_add_actions()).column("path").to_pylist()
        columns = table.metadata().partition_columns
    except OSError as error:
        raise RunError(f"the log of the Delta table {root} cannot be read: {_plain(error)}") from None
    except DeltaError as error:
        raise InputError(f"the Delta table {root} cannot be read: {_plain(error)}") from None
    foreign = [path for path in paths if "://" in path or path.startswith("/")]
    if foreign:
        raise InputError(
            f"the Delta table {root} is a shallow clone, with files of another table ({foreign[0]}); make a deep clone"
        )
    for path in paths:
        folders = {unquote(folder.split("=")[0]) for folder in unquote(path).split("/")[:-1]}
        for column in columns:
            if column not in folders:
                raise InputError(
                    f"{path} of the Delta table {root} lies in no folder {column}=…, so its value of {column!r} is in "
                    "the log alone; write the table again"
                )
    return Snapshot(root, "delta", table.version(), sorted((root / unquote(path) for path in paths), key=str))


def _delta_options(root: Location) -> dict[str, str]:
    """What deltalake has to be told beside the environment, for it to reach what pyarrow reaches."""
    options = {
        option: os.environ[variable]
        for variable, option in (
            ("AZURE_STORAGE_KEY", "azure_storage_account_key"),
            ("AZURE_STORAGE_SAS_TOKEN", "azure_storage_sas_token"),
        )
        if variable in os.environ
    }
    azure = os.environ.get("AZURE_STORAGE_ENDPOINT", "") if root.uri.startswith("abfs") else ""
    if azure:
        options["azure_storage_endpoint"] = f"{azure}/{root.uri.split('@')[1].split('.')[0]}"
    if (azure or os.environ.get("AWS_ENDPOINT_URL", "")).startswith("http://"):
        options["allow_http"] = "true"
    return options


def _check_delta_features(root: Location, table: Any) -> None:
    """Raise InputError where plain files are not what the table holds."""
    features = table.protocol().reader_features or []
    mode = table.metadata().configuration.get("delta.columnMapping.mode", "none")
    if mode != "none":
        raise InputError(
            f"the Delta table {root} maps its columns to other names (delta.columnMapping.mode = {mode!r}), which "
            "cannot be read; write it to a table without"
        )
    unknown = [feature for feature in features if feature not in _HARMLESS]
    if unknown:
        raise InputError(
            f"the Delta table {root} has the feature {unknown[0]}, which cannot be read; write it to a table without"
        )
    if "deletionVectors" in features and any(batch.num_rows for batch in table.deletion_vectors()):
        raise InputError(
            f"the Delta table {root} has deletion vectors, by which rows in its files are deleted; write these files "
            "anew first (REORG TABLE … APPLY (PURGE))"
        )


# --- Iceberg ----------------------------------------------------------------------------------------------


def _iceberg(root: Location, named: Location | None) -> Snapshot:
    try:
        from pyiceberg.io.pyarrow import PyArrowFile, PyArrowFileIO
        from pyiceberg.manifest import FileFormat, ManifestContent
        from pyiceberg.serializers import FromInputFile
        from pyiceberg.transforms import IdentityTransform
    except ImportError:
        raise _missing(root, "Iceberg", "pyiceberg") from None

    class Files(PyArrowFileIO):
        """Files on the storage, and with the credentials, that all others are read with."""

        def new_input(self, location: str) -> PyArrowFile:
            place = _iceberg_location(location)
            return PyArrowFile(location=location, path=place.path, fs=place.filesystem)

    io, metadata_file = Files(), named or _newest_metadata(root)
    try:
        metadata = FromInputFile.table_metadata(io.new_input(metadata_file.uri))
        snapshot = metadata.current_snapshot()
        manifests = snapshot.manifests(io) if snapshot else []
        entries = [(m.content, e.data_file) for m in manifests for e in m.fetch_manifest_entry(io)]
    except OSError as error:
        raise RunError(f"the metadata of the Iceberg table {root} cannot be read: {_plain(error)}") from None
    except Exception as error:  # of many kinds; the package has none of its own for a broken table
        raise InputError(f"the Iceberg table {root} cannot be read: {_plain(error)}") from None
    if snapshot is None:
        raise InputError(f"the Iceberg table {root} has no snapshot, and so no rows; write some to it")
    for content, file in entries:
        if content == ManifestContent.DELETES:
            raise InputError(
                f"the Iceberg table {root} has delete files, by which rows in its data files are deleted; write these "
                "anew first (rewrite_data_files with delete-file-threshold 1)"
            )
        if file.file_format != FileFormat.PARQUET:
            raise InputError(f"{file.file_path} of the Iceberg table {root} is {file.file_format}, expected Parquet")
    mapping = metadata.name_mapping()
    columns = {column.field_id: column.name for column in metadata.schema().fields}
    return Snapshot(
        root,
        "iceberg",
        snapshot.snapshot_id,
        sorted((_iceberg_location(file.file_path) for _, file in entries), key=str),
        columns,
        {name: of.field_id for of in mapping.root for name in of.names if of.field_id is not None} if mapping else {},
        frozenset(
            columns[part.source_id]
            for spec in metadata.specs().values()
            for part in spec.fields
            if isinstance(part.transform, IdentityTransform) and part.source_id in columns
        ),
    )


def _iceberg_location(path: str) -> Location:
    """A file that the metadata name; Hadoop writes them with its own name for S3."""
    return Location.of(re.sub(r"^s3[an]://", "s3://", path))


def _newest_metadata(root: Location) -> Location:
    """The metadata file of the highest number."""
    numbered: dict[int, list[Location]] = {}
    for entry in (root / "metadata").entries():
        match = _METADATA.fullmatch(entry.name)
        if match:
            numbered.setdefault(int(match[1]), []).append(entry)
    newest = numbered[max(numbered)]
    if len(newest) > 1:
        raise InputError(
            f"{newest[0]} and {newest[1].name} are both the newest metadata of the Iceberg table {root}; give the path "
            "of the one that its catalog names"
        )
    return newest[0]
