"""Delta and Iceberg tables as inputs: written, deleted from and overwritten by their own packages."""

import json
import os
import struct
import subprocess
import sys
from base64 import b85encode
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT, error_line, run_job
from deltalake import DeltaTable, write_deltalake
from moto.server import ThreadedMotoServer
from pyarrow import fs
from pyiceberg.catalog.sql import SqlCatalog
from pyroaring import BitMap

from novelsum.errors import InputError
from novelsum.files.source import look, open_source, read_ids_and_vectors, read_rows

LEFT = [0, 1, 2, 5, 6, 7, 8, 9]
"""What is left of ids 0 to 9 when 3 and 4 are deleted."""


def rows(first: int, last: int, night: str = "1 a") -> pa.Table:
    """Rows with ids from first to last."""
    ids = np.arange(first, last + 1)
    vectors = [[1.0, float(id_) + 1, float(id_) ** 2] for id_ in ids]
    return pa.table({"id": ids, "night": [night] * len(ids), "embedding": vectors})


def write_delta(root: object, **options: object) -> str:
    """A table of two nights: ids 3 and 4 are deleted, and the second night is overwritten."""
    write_deltalake(str(root), rows(0, 5), partition_by=["night"], **options)
    write_deltalake(str(root), rows(6, 7, "2 b"), mode="append", **options)
    DeltaTable(str(root), **options).delete("id in (3, 4)")
    write_deltalake(str(root), rows(6, 9, "2 b"), mode="overwrite", predicate="night = '2 b'", **options)
    return str(root)


def iceberg_table(root: object, schema: pa.Schema | None = None, **properties: str):
    """An empty table whose catalog is forgotten with the test."""
    catalog = SqlCatalog("test", uri="sqlite:///:memory:", **properties)
    catalog.create_namespace("test")
    location = str(root) if "://" in str(root) else f"file://{root}"
    return catalog.create_table("test.rows", schema or rows(0, 0).schema, location)


def write_iceberg(root: object, **properties: str) -> str:
    """The same rows, of which 3 and 4 are deleted, and the rest written twice."""
    table = iceberg_table(root, **properties)
    table.append(rows(0, 5))
    table.append(rows(6, 7, "2 b"))
    table.delete("id in (3, 4)")
    table.overwrite(rows(6, 9, "2 b"), "night = '2 b'")
    return str(root)


WRITERS = {"delta": write_delta, "iceberg": write_iceberg}


def ids_of(path: object) -> list[int]:
    """The ids that a job would read, sorted."""
    source = open_source(str(path), "id", "embedding")
    read = [ids for chunk in source.chunks(1) for _, _, ids, _, _ in read_ids_and_vectors(source, chunk)]
    return sorted(pa.chunked_array(read, pa.int64()).to_pylist())


@pytest.mark.parametrize("format_", WRITERS)
def test_no_deleted_or_replaced_row_of_a_table_is_read(format_, tmp_path):
    root = WRITERS[format_](tmp_path / "a table")
    on_disk = (tmp_path / "a table").rglob("*.parquet")
    assert sum(pq.read_metadata(path).num_rows for path in on_disk) > len(LEFT)
    source = open_source(root, "id", "embedding")
    assert ids_of(root) == LEFT
    version = DeltaTable(root).version() if format_ == "delta" else newest_metadata(root)["current-snapshot-id"]
    assert source.table == {"format": format_, "version": version}
    nights = {}
    for chunk in source.chunks(1):
        for file, at, ids, _, _ in read_ids_and_vectors(source, chunk):
            copied = read_rows(source, file, at, ids.to_pylist(), ["night"]).column("night").to_pylist()
            nights |= dict(zip(ids.to_pylist(), copied, strict=True))
    assert nights == {id_: "1 a" if id_ < 6 else "2 b" for id_ in LEFT}


def newest_metadata(root: str) -> dict:
    return json.loads(max((Path(root) / "metadata").glob("*.metadata.json")).read_text())


@pytest.mark.parametrize(
    ("format_", "below", "expected"),
    [
        ("delta", "night=1%20a", [0, 1, 2, 5]),
        ("delta", "*/*.parquet", LEFT),
        ("delta", "night=2*", [6, 7, 8, 9]),
        ("iceberg", "data", LEFT),
        ("iceberg", "data/*.parquet", LEFT),
        ("iceberg", "*", LEFT),
    ],
)
def test_a_path_below_the_root_of_a_table_means_its_current_files_there(format_, below, expected, tmp_path):
    root = WRITERS[format_](tmp_path / "table")
    assert ids_of(f"{root}/{below}") == expected


def test_a_file_that_a_table_has_replaced_is_refused(tmp_path):
    root = write_delta(tmp_path / "table")
    stale = next(path for path in Path(root).rglob("*.parquet") if str(path) not in map(str, look(root).files))
    with pytest.raises(InputError, match=rf"{stale.name} lies in the Delta table {root}, and no file of its version 3"):
        open_source(str(stale), "id", "embedding")


@pytest.mark.parametrize("format_", WRITERS)
def test_a_folder_or_glob_that_takes_in_a_table_is_refused(format_, tmp_path):
    root = WRITERS[format_](tmp_path / "lake" / "table")
    (tmp_path / "lake" / "plain").mkdir()
    pq.write_table(rows(20, 25), tmp_path / "lake" / "plain" / "part.parquet")
    for path in (tmp_path / "lake", tmp_path / "lake" / "*", tmp_path / "*" / "table"):
        with pytest.raises(InputError, match=f"table {root}; give that table itself"):
            open_source(str(path), "id", "embedding")
    assert ids_of(tmp_path / "lake" / "pl*") == list(range(20, 26))


# --- what files alone do not tell -------------------------------------------------------------------------


def edit_log(root: str, edit) -> None:
    """Change the actions of the first entry of a Delta log."""
    log = Path(root) / "_delta_log" / "00000000000000000000.json"
    actions = [json.loads(line) for line in log.read_text().splitlines() if line]
    log.write_text("\n".join(json.dumps(edit(action)) for action in actions))


_RFC1924 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~"
_Z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"


def with_features(*features: str, vector: bytes = b""):
    """An edit that gives a table some features, and its files a deletion vector."""

    def edit(action: dict) -> dict:
        if "protocol" in action:
            names = list(features)
            return {
                "protocol": {
                    "minReaderVersion": 3,
                    "minWriterVersion": 7,
                    "readerFeatures": names,
                    "writerFeatures": names,
                }
            }
        if "add" in action and vector:
            text = b85encode(vector, pad=True).decode().translate(str.maketrans(_RFC1924, _Z85))
            deleted = {"storageType": "i", "pathOrInlineDv": text, "sizeInBytes": len(vector), "cardinality": 2}
            return {"add": {**action["add"], "deletionVector": deleted}}
        return action

    return edit


def test_deletion_vectors_of_delta_are_refused(tmp_path):
    """The vector is a real one, which deltalake applies: rows 3 and 4 are not in what it reads."""
    write_deltalake(str(tmp_path / "t"), rows(0, 9))
    bitmap = BitMap([3, 4]).serialize()
    vector = struct.pack("<iqi", 1681511377, 1, 0) + bitmap
    edit_log(str(tmp_path / "t"), with_features("deletionVectors", vector=vector))
    with pytest.raises(InputError, match="has deletion vectors, by which rows in its files are deleted"):
        open_source(str(tmp_path / "t"), "id", "embedding")


def test_a_delta_table_that_only_allows_deletion_vectors_is_read(tmp_path):
    write_deltalake(str(tmp_path / "t"), rows(0, 9))
    edit_log(str(tmp_path / "t"), with_features("deletionVectors"))
    assert ids_of(tmp_path / "t") == list(range(10))


def test_other_features_of_delta_are_refused_by_name(tmp_path):
    write_deltalake(str(tmp_path / "t"), rows(0, 9))
    edit_log(str(tmp_path / "t"), with_features("typeWidening"))
    with pytest.raises(InputError, match=r"table .*/t (has the feature typeWidening|cannot be read)"):
        open_source(str(tmp_path / "t"), "id", "embedding")


def test_columns_that_delta_maps_to_other_names_are_refused(tmp_path):
    write_deltalake(str(tmp_path / "t"), rows(0, 9))

    def mapped(action: dict) -> dict:
        if "protocol" in action:
            return {"protocol": {"minReaderVersion": 2, "minWriterVersion": 5}}
        if "metaData" in action:
            schema = json.loads(action["metaData"]["schemaString"])
            for number, column in enumerate(schema["fields"], 1):
                name = f"col-{number}"
                column["metadata"] = {"delta.columnMapping.id": number, "delta.columnMapping.physicalName": name}
            setting = {"delta.columnMapping.mode": "name", "delta.columnMapping.maxColumnId": "3"}
            return {"metaData": {**action["metaData"], "schemaString": json.dumps(schema), "configuration": setting}}
        return action

    edit_log(str(tmp_path / "t"), mapped)
    with pytest.raises(InputError, match="maps its columns to other names"):
        open_source(str(tmp_path / "t"), "id", "embedding")


def test_a_damaged_delta_log_is_one_sentence(tmp_path):
    write_deltalake(str(tmp_path / "t"), rows(0, 9))
    (tmp_path / "t" / "_delta_log" / "00000000000000000000.json").write_text("{}")
    with pytest.raises(InputError, match=r"the Delta table .*/t cannot be read: [^\n]+$"):
        open_source(str(tmp_path / "t"), "id", "embedding")


def test_a_column_that_iceberg_has_renamed_or_dropped_is_refused(tmp_path):
    table = iceberg_table(tmp_path / "t")
    table.append(rows(0, 9))
    with table.update_schema() as schema:
        schema.rename_column("night", "date")
    with pytest.raises(InputError, match=r"has a column 'night', but the Iceberg table .* calls it 'date' now"):
        open_source(str(tmp_path / "t"), "id", "embedding")
    table.overwrite(table.scan().to_arrow())
    assert ids_of(tmp_path / "t") == list(range(10))
    with table.update_schema() as schema:
        schema.delete_column("date")
    with pytest.raises(InputError, match=r"has a column 'date', but the Iceberg table .* has none of that id now"):
        open_source(str(tmp_path / "t"), "id", "embedding")


def test_files_that_were_added_to_iceberg_as_they_are_need_its_names(tmp_path):
    table = iceberg_table(tmp_path / "t")
    pq.write_table(rows(0, 9), tmp_path / "plain.parquet")
    table.add_files([(tmp_path / "plain.parquet").as_uri()])
    assert ids_of(tmp_path / "t") == list(range(10))


def test_delete_files_of_iceberg_are_refused(tmp_path):
    """The manifest of a real table is written again as one of deletes: pyiceberg itself writes none."""
    from pyiceberg.manifest import ManifestContent, write_manifest_list

    table = iceberg_table(tmp_path / "t")
    table.append(rows(0, 9))
    snapshot = table.current_snapshot()
    manifests = snapshot.manifests(table.io)
    for manifest in manifests:
        manifest[3] = ManifestContent.DELETES
    with write_manifest_list(
        2,
        table.io.new_output(snapshot.manifest_list),
        snapshot.snapshot_id,
        None,
        snapshot.sequence_number,
        "null",
    ) as writer:
        writer.add_manifests(manifests)
    with pytest.raises(InputError, match="has delete files, by which rows in its data files are deleted"):
        open_source(str(tmp_path / "t"), "id", "embedding")


def test_a_delta_table_whose_rows_are_all_deleted_is_refused(tmp_path):
    write_deltalake(str(tmp_path / "t"), rows(0, 9))
    DeltaTable(str(tmp_path / "t")).delete()
    with pytest.raises(InputError, match="has no rows in its version 1"):
        open_source(str(tmp_path / "t"), "id", "embedding")


def test_a_local_table_is_read_whatever_the_environment_says_of_object_storage(tmp_path, monkeypatch):
    for name in ("AWS_ENDPOINT_URL", "AZURE_STORAGE_ENDPOINT"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setenv("AZURE_STORAGE_KEY", "key")
    assert ids_of(write_delta(tmp_path / "delta")) == LEFT
    assert ids_of(write_iceberg(tmp_path / "iceberg")) == LEFT


def test_an_iceberg_table_without_rows_is_refused(tmp_path):
    iceberg_table(tmp_path / "t")
    with pytest.raises(InputError, match="has no snapshot, and so no rows"):
        open_source(str(tmp_path / "t"), "id", "embedding")


def test_a_metadata_file_of_iceberg_can_be_named_where_two_are_the_newest(tmp_path):
    root = write_iceberg(tmp_path / "t")
    newest = max((tmp_path / "t" / "metadata").glob("*.metadata.json"))
    other = newest.with_name(newest.name.replace("-", "-0", 1))
    other.write_bytes(newest.read_bytes())
    with pytest.raises(InputError, match="are both the newest metadata of the Iceberg table"):
        open_source(root, "id", "embedding")
    assert ids_of(newest) == LEFT


# --- the jobs ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("format_", "package"), [("delta", "deltalake"), ("iceberg", "pyiceberg")])
def test_without_its_package_a_table_is_refused_whatever_is_done_with_bad_rows(format_, package, tmp_path):
    root = WRITERS[format_](tmp_path / "table")
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nsys.modules[{package!r}] = None\n")
    for path in (root, f"{root}/{'night=1%20a' if format_ == 'delta' else 'data'}"):
        done = subprocess.run(
            [
                *(sys.executable, ROOT / "jobs" / "curate.py", "--input", path, "--output", tmp_path / "out"),
                *("--budget", "3", "--on-bad-rows", "drop"),
            ],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        )
        assert done.returncode == 3
        assert f"{root} is a {format_.title()} table" in error_line(done)
        assert f"pip install {package}" in error_line(done)
    assert not (tmp_path / "out").exists()


@pytest.mark.more
@pytest.mark.parametrize("format_", WRITERS)
def test_a_job_over_tables_selects_no_deleted_row_and_notes_the_version(format_, tmp_path):
    root = WRITERS[format_](tmp_path / "table")
    arguments = ("--input", root, "--output", tmp_path / "out", "--budget", 8, "--neighbors", 2)
    done = run_job("curate", *arguments, "--reference", root)
    assert done.returncode == 0, done.stderr
    assert sorted(pq.read_table(tmp_path / "out" / "selected").column("id").to_pylist()) == LEFT
    manifest = json.loads((tmp_path / "out" / "_MANIFEST.json").read_text())
    table = open_source(root, "id", "embedding").table
    assert manifest["input"]["table"] == manifest["reference"]["table"] == table
    if format_ == "delta":
        DeltaTable(root).delete("id = 9")
        again = run_job("curate", *arguments, "--reference", root)
        assert again.returncode == 2
        assert "holds the result of another run" in error_line(again)


@pytest.fixture(scope="module")
def lake():
    """An empty bucket of moto's S3; ``AWS_*`` say how to reach it."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "key")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        fs.S3FileSystem(allow_bucket_creation=True, endpoint_override=f"http://{host}:{port}").create_dir("lake")
        yield {"s3.endpoint": f"http://{host}:{port}", "s3.access-key-id": "key", "s3.secret-access-key": "key"}
    server.stop()


@pytest.mark.storage
def test_tables_on_object_storage_are_read_with_what_the_environment_says(lake):
    """Credentials and endpoint are in the environment alone."""
    delta = write_delta("s3://lake/a/b/delta", storage_options={"aws_allow_http": "true"})
    assert ids_of(delta) == ids_of(f"{delta}/*/*.parquet") == LEFT
    assert ids_of(f"{delta}/night=1%20a") == [0, 1, 2, 5]
    iceberg = write_iceberg("s3://lake/a/b/iceberg", **lake)
    assert ids_of(iceberg) == ids_of(f"{iceberg}/data") == LEFT
