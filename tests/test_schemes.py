"""Paths on storage that no run can use are refused before Spark starts; Azure's names are understood."""

import http.server
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT, SAMPLE, error_line, run_job
from deltalake import DeltaTable, write_deltalake
from pyarrow import fs

from novelsum import schemes
from novelsum.errors import UsageError
from novelsum.files.location import Location
from novelsum.files.source import open_source
from novelsum.settings import parse, parse_measure

REFUSED = {
    "s3a://bucket/x": "write s3://",
    "s3n://bucket/x": "write s3://",
    "s3:/bucket/x": "write s3://BUCKET/PATH",
    "s3:///x": "write s3://BUCKET/PATH",
    "S3://bucket/x": "no storage known here",
    "dbfs:/x": "/Volumes/… or /dbfs/…",
    "dbfs:///x": "/Volumes/… or /dbfs/…",
    "wasbs://c@a.blob.core.windows.net/x": "write abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/PATH",
    "abfss://container/x": "write abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/PATH",
    "abfss:/container/x": "write abfss://BUCKET/PATH",
    "https://host/x": "copy the files to a disk or to object storage first",
    "file://host/x": "it names another machine",
    "ftp://host/x": "no storage known here; use s3://, gs://, abfss://, hdfs://",
}


def arguments(**paths: str) -> list[str]:
    given = {"input": "in", "output": "out", **paths}
    return [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]


@pytest.mark.parametrize("path", REFUSED)
def test_a_path_that_cannot_be_reached_is_refused_with_what_to_use(path):
    with pytest.raises(UsageError) as refused:
        parse("curate", "", [*arguments(input=path), "--budget=1"])
    assert str(refused.value).startswith(f"--input {path} cannot be used: ")
    assert REFUSED[path] in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("job", "setting", "more"),
    [
        *[("curate", name, ["--budget=1"]) for name in ("output", "work_dir", "already_selected", "reference")],
        *[("select_subset", name, ["--budget=1", "--density=d"]) for name in ("input", "density")],
        *[("estimate_density", name, []) for name in ("save_state", "update")],
        *[("measure_diversity", name, []) for name in ("input", "output", "reference", "work_dir")],
    ],
)
def test_every_setting_that_is_a_path_is_looked_at(job, setting, more):
    given = [*more, *arguments(**{setting: "s3a://bucket/x"})]
    flag = "--" + setting.replace("_", "-")
    with pytest.raises(UsageError, match=f"{flag} s3a://bucket/x cannot be used"):
        parse_measure("", given) if job == "measure_diversity" else parse(job, "", given)


@pytest.mark.parametrize(
    "path", ["a:b/c", "./s3:/x", "/x/s3:/y", "file:///x", "file:/x", "file://localhost/x", "s3://b"]
)
def test_paths_of_this_machine_and_known_storage_are_left_alone(path):
    schemes.require_reachable("--input", path)


def test_hdfs_without_its_library_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.delenv("CLASSPATH", raising=False)
    with pytest.raises(UsageError, match=r"hdfs://host/x cannot be used: CLASSPATH does not name"):
        schemes.require_reachable("--input", "hdfs://host/x")
    code = "from novelsum.schemes import require_reachable; require_reachable('--input', 'viewfs://host/x')"
    environment = {"CLASSPATH": "x.jar", "JAVA_HOME": str(tmp_path), "ARROW_LIBHDFS_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, **environment},
    )
    assert "Unable to load lib" in done.stderr
    assert "set JAVA_HOME, HADOOP_HOME (or ARROW_LIBHDFS_DIR) and CLASSPATH" in done.stderr.splitlines()[-1]


# --- credentials of Google Cloud --------------------------------------------------------------------------


@pytest.fixture
def no_google(monkeypatch, tmp_path):
    """A user without credentials, on a machine where nothing answers for the metadata server."""
    for name in ("GOOGLE_APPLICATION_CREDENTIALS", "CLOUD_STORAGE_EMULATOR_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("GCE_METADATA_ROOT", f"127.0.0.1:{silent.getsockname()[1]}")
        yield monkeypatch


def test_gs_without_credentials_is_refused_within_seconds(no_google, tmp_path):
    started = time.monotonic()
    done = run_job("curate", "--input", "gs://bucket/x", "--output", tmp_path / "out", "--budget", 1, by="python")
    assert time.monotonic() - started < 20  # imports and two seconds of waiting, on a busy machine
    assert done.returncode == 2
    assert "no credentials for Google Cloud" in error_line(done)


def test_gs_is_used_with_credentials_or_without_any_by_name(no_google, tmp_path):
    schemes.require_reachable("--input", "gs://anonymous@bucket/x")
    assert Location("gs://anonymous@bucket/x").path == "bucket/x"
    (tmp_path / "application_default_credentials.json").write_text("{}")
    schemes.require_reachable("--input", "gs://bucket/x")


class MetadataServer(http.server.BaseHTTPRequestHandler):
    """What answers on a machine of Google's, or of another cloud where it does not name itself."""

    named = True

    def do_GET(self) -> None:
        self.send_response(200)
        if self.named:
            self.send_header("Metadata-Flavor", "Google")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_a_machine_of_googles_has_credentials_and_one_of_another_cloud_none(no_google):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), MetadataServer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        no_google.setenv("GCE_METADATA_ROOT", f"127.0.0.1:{server.server_port}")
        schemes.require_reachable("--input", "gs://bucket/x")
        no_google.setattr(MetadataServer, "named", False)
        with pytest.raises(UsageError, match="no credentials for Google Cloud"):
            schemes.require_reachable("--input", "gs://bucket/x")
        server.shutdown()


# --- Azure ------------------------------------------------------------------------------------------------


def test_the_container_of_an_azure_uri_begins_the_path_and_the_account_is_the_host():
    folder = Location.of("abfss://container@account.dfs.core.windows.net/a/b/")
    assert folder.path == "container/a/b"
    assert (folder / "c").path == "container/a/b/c"
    assert folder._at("container/x").uri == "abfss://container@account.dfs.core.windows.net/x"
    assert folder.filesystem.type_name == "abfs"
    assert folder.filesystem.equals(fs.FileSystem.from_uri(folder.uri)[0])
    glob = Location("abfss://container@account.dfs.core.windows.net")
    assert glob.path == "container"


def azurite() -> str | None:
    """The emulator of Azure's storage, where ``make test-storage`` or the user has installed it."""
    return shutil.which("azurite-blob", path=f"{ROOT}/build/azurite/node_modules/.bin:{os.environ['PATH']}")


@pytest.fixture(scope="module")
def account(tmp_path_factory):
    """The sample in a container of Azurite; ``AZURE_STORAGE_*`` say how to reach it."""
    program = azurite()
    if program is None:
        words = "Azurite is not installed: npm install --prefix build/azurite azurite@3.33.0"
        (pytest.fail if "CI" in os.environ else pytest.skip)(words)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [program, "--blobPort", str(port), "--silent", "--skipApiVersionCheck", "--inMemoryPersistence"]
    folder = tmp_path_factory.mktemp("azurite")
    key = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
    with (
        pytest.MonkeyPatch.context() as patch,
        subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL) as server,
    ):
        patch.setenv("AZURE_STORAGE_KEY", key)
        patch.setenv("AZURE_STORAGE_ENDPOINT", f"http://127.0.0.1:{port}")
        try:
            wait_for(port)
            root = Location.of("abfss://data@devstoreaccount1.dfs.core.windows.net/")
            root.make_folder()
            fs.copy_files(str(SAMPLE), (root / "sample").path, destination_filesystem=root.filesystem)
            yield root
        finally:
            server.terminate()


def wait_for(port: int) -> None:
    for _ in range(600):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise TimeoutError(f"nothing listens on port {port}")


@pytest.mark.storage
def test_a_delta_table_on_azure_is_read_without_its_deleted_rows(account, tmp_path):
    rows = pa.table({"id": range(10), "embedding": [[1.0, float(id_)] for id_ in range(10)]})
    write_deltalake(str(tmp_path / "table"), rows)
    DeltaTable(str(tmp_path / "table")).delete("id > 5")
    fs.copy_files(str(tmp_path / "table"), (account / "table").path, destination_filesystem=account.filesystem)
    for path in (account / "table", account / "table" / "*.parquet"):
        source = open_source(str(path), "id", "embedding")
        assert source.table == {"format": "delta", "version": 1}
        assert source.rows == 6


@pytest.mark.storage
def test_a_selection_on_azure_is_that_on_a_disk(account, tmp_path):
    more = ("--budget", 40, "--text-column", "text", "--block-rows", 700)
    local = run_job("curate", "--input", SAMPLE, "--output", tmp_path / "out", *more)
    assert local.returncode == 0, local.stderr
    paths = ("--input", account / "sample" / "*.parquet", "--output", account / "out", "--work-dir", account / "work")
    done = run_job("curate", *paths, *more, by="python")
    assert done.returncode == 0, done.stderr
    found = pq.read_table((account / "out" / "selected").path, filesystem=account.filesystem)
    assert found.equals(pq.read_table(tmp_path / "out" / "selected"))
    assert (account / "out" / "_MANIFEST.json").modified() > time.time() - 3600
    names = sorted(file.uri.removeprefix(f"{account}/out/") for file in (account / "out").all_files())
    assert [name for name in names if not name.startswith("duplicates/")] == [
        *(
            "_MANIFEST.json",
            "_rows.parquet",
            "metrics.json",
            "report.html",
            "report.json",
            "selected/part-00000.parquet",
        )
    ]
    assert json.loads((account / "out" / "_MANIFEST.json").read_bytes())["selected"]["picks"] == 40
    again = run_job("curate", *paths, *more, by="python")
    assert again.returncode == 0
    assert "already" in again.stderr
