"""Input, work directory and output on object storage: moto's server speaks S3 on loopback, a proxy before it fails."""

import http.client
import itertools
import json
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT, SAMPLE, error_line, run_job
from moto.server import ThreadedMotoServer
from pyarrow import fs

from novelsum.errors import InputError, UsageError
from novelsum.files import lock
from novelsum.files.location import Location
from novelsum.files.lock import held
from novelsum.files.source import look, open_source, read_columns

pytestmark = pytest.mark.storage
SECRET = "planted/secret+that/nobody+may/print+0123"
_OF_THE_BODY = ("transfer-encoding", "content-length", "expect")
FAILED, SLOW = (25, 60, 61, 130), (40, 90)
ERRORS = {
    403: b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>",
    503: b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>",
}


class FaultyProxy(BaseHTTPRequestHandler):
    """Passes requests on to the server, but for some, which fail as S3 does under load, or take their time."""

    protocol_version = "HTTP/1.1"
    upstream = ("", 0)
    count = itertools.count(1)
    failed: ClassVar[list[str]] = []
    passed: ClassVar[list[str]] = []
    broken: ClassVar[dict[str, int]] = {}
    """Parts of paths of which no content can be had, and the status each is answered with."""

    def answer(self) -> None:
        body = self.body()
        number = next(self.count)
        if number in SLOW:
            time.sleep(3)
        status = [code for part, code in self.broken.items() if part in self.path and self.command == "GET"]
        if number in FAILED and not status:
            self.failed.append(f"{self.command} {self.path}")
            status = [503]
        if status:
            self.reply(status[0], [("Content-Type", "application/xml")], ERRORS[status[0]])
            return
        self.passed.append(f"{self.command} {self.path}")
        connection = http.client.HTTPConnection(*self.upstream)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _OF_THE_BODY}
        connection.request(self.command, self.path, body, {**headers, "Content-Length": str(len(body))})
        response = connection.getresponse()
        self.reply(response.status, response.getheaders(), response.read())
        connection.close()

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def reply(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
        self.send_response_only(status)
        kept = [(k, v) for k, v in headers if k.lower() not in ("transfer-encoding", "content-length", "connection")]
        length = next((v for k, v in headers if k.lower() == "content-length"), str(len(content)))
        for name, value in [*kept, ("Content-Length", length if self.command == "HEAD" else str(len(content)))]:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = answer  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def bucket():
    """The sample in a bucket that is reached through the proxy; ``AWS_*`` say how."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    FaultyProxy.upstream = server.get_host_and_port()
    proxy = ThreadingHTTPServer(("127.0.0.1", 0), FaultyProxy)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.server_port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        connection = http.client.HTTPConnection(*FaultyProxy.upstream)
        connection.request("PUT", "/data")
        assert connection.getresponse().status == 200
        fs.copy_files(str(SAMPLE), "s3://data/sample")
        yield fs.FileSystem.from_uri("s3://data")[0]
    proxy.shutdown()
    server.stop()


ARGUMENTS = ("--budget", 40, "--text-column", "text", "--block-rows", 700)


def test_a_selection_on_object_storage_is_that_on_a_disk(bucket, tmp_path):
    """Through failed and slow requests; nothing but the result stays, and no credential is anywhere."""
    local = run_job("curate", "--input", SAMPLE, "--output", tmp_path / "out", *ARGUMENTS)
    assert local.returncode == 0, local.stderr
    done = run_job("curate", "--input", "s3://data/sample", "--output", "s3://data/out", *ARGUMENTS, by="python")
    assert done.returncode == 0, done.stderr
    assert len(FaultyProxy.failed) == len(FAILED)
    found = pq.read_table("data/out/selected", filesystem=bucket)
    assert found.equals(pq.read_table(tmp_path / "out" / "selected"))
    files = [f for f in bucket.get_file_info(fs.FileSelector("data/out", recursive=True)) if f.type == fs.FileType.File]
    names = sorted(file.path.removeprefix("data/out/") for file in files)
    assert names[:2] == ["_MANIFEST.json", "_rows.parquet"]
    assert names[2:] == [
        *("duplicates/part-00000.parquet", "metrics.json", "report.html", "report.json", "selected/part-00000.parquet")
    ]
    for content in (
        done.stdout,
        done.stderr,
        *(bucket.open_input_file(file.path).read().decode("latin1") for file in files),
    ):
        assert SECRET not in content
    again = run_job("curate", "--input", "s3://data/sample", "--output", "s3://data/out", *ARGUMENTS, by="python")
    assert again.returncode == 0
    assert "already" in again.stderr


def test_a_training_file_of_a_selection_is_written_to_object_storage(bucket, tmp_path):
    """From a result that lies there already, as from one on a disk; and a file that is there is not replaced."""
    arguments = ("--input", "s3://data/sample", "--output", "s3://data/chosen", *ARGUMENTS)
    target = "s3://data/train/chosen.jsonl"
    for more in ((), ("--export", target)):
        done = run_job("curate", *arguments, *more, by="python")
        assert done.returncode == 0, done.stderr
    local = ("--input", SAMPLE, "--output", tmp_path / "out", "--export", tmp_path / "chosen.jsonl", *ARGUMENTS)
    assert run_job("curate", *local).returncode == 0
    content = bucket.open_input_file("data/train/chosen.jsonl").read()
    assert content == (tmp_path / "chosen.jsonl").read_bytes()
    assert content.count(b"\n") == 40
    with bucket.open_output_stream("data/train/chosen.jsonl") as stream:
        stream.write(b"mine")
    taken = run_job("curate", *arguments, "--export", target, "--export-order", "input", by="python")
    assert taken.returncode == 2
    assert "exists already; remove it, or name another file" in error_line(taken)


def test_a_result_is_replaced_from_a_work_directory_on_another_path(bucket, tmp_path):
    density = ("--input", "s3://data/sample", "--output", "s3://data/density", "--work-dir", "s3://data/work")
    for more in ((), ("--neighbors", 5, "--overwrite")):
        done = run_job("estimate_density", *density, *more, by="python")
        assert done.returncode == 0, done.stderr
    manifest = json.loads(bucket.open_input_file("data/density/_MANIFEST.json").read())
    assert manifest["settings"]["neighbors"] == 5
    assert not bucket.get_file_info(fs.FileSelector("data/work", recursive=True, allow_not_found=True))


def test_a_bucket_that_is_not_there_is_named(bucket, tmp_path):
    failed = run_job("curate", "--input", "s3://nowhere/x", "--output", tmp_path / "out", *ARGUMENTS, by="python")
    assert failed.returncode == 3
    assert "s3://nowhere/x" in error_line(failed)


def test_an_object_that_is_replaced_is_told_by_its_version(bucket):
    """The same bytes in number, in the same second: the store's own tag differs."""
    table = pa.table({"id": range(100), "embedding": np.random.default_rng(0).random((100, 4)).tolist()})
    for order in (range(100), range(99, -1, -1)):
        taken = table.take(pa.array(order))
        pq.write_table(taken, "data/one.parquet", filesystem=bucket, compression="none", use_dictionary=False)
        if not order[0]:
            seen = look("s3://data/one.parquet")
            source = open_source("s3://data/one.parquet", "id", "embedding", seen)
            (chunk,) = source.chunks(1000)
            assert sum(len(batch) for batch in read_columns(source, chunk, ["id"])) == 100
    assert look("s3://data/one.parquet").stamps[0].size == seen.stamps[0].size
    with pytest.raises(InputError, match=r"s3://data/one\.parquet was written again while the run read it"):
        list(read_columns(source, chunk, ["id"]))


def test_an_object_is_opened_once_for_its_version_and_its_footer(bucket):
    """A HEAD and a GET each, however many there are."""
    for number in range(4):
        pq.write_table(
            pa.table({"id": [number], "embedding": [[1.0]]}), f"data/few/{number}.parquet", filesystem=bucket
        )
    FaultyProxy.passed.clear()
    assert open_source("s3://data/few", "id", "embedding").rows == 4
    asked = sorted(line for line in FaultyProxy.passed if line.endswith(".parquet"))
    assert asked == [f"{command} /data/few/{number}.parquet" for command in ("GET", "HEAD") for number in range(4)]


@pytest.mark.parametrize("status", [503, 403])
def test_a_store_that_refuses_to_read_costs_no_work(bucket, tmp_path, status):
    """For good, once the store is written: of the input first, then of the store; exit 1, and the work stays."""
    output = f"s3://data/out-{status}"
    given = [str(a) for a in ("--input", "s3://data/sample", "--output", output, *ARGUMENTS, "--no-report")]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "jobs" / "curate.py"), *given], stderr=subprocess.PIPE, text=True
    )
    done = f"data/out-{status}/_work/work/3-density/done.json"
    while bucket.get_file_info(done).type == fs.FileType.NotFound:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    FaultyProxy.broken = {"/sample/": status}
    try:
        _, errors = process.communicate(timeout=400)
        assert process.returncode == 1, errors
        assert_store_is_named(errors, "s3://data/sample/")
        FaultyProxy.broken = {"/work/1-ingest/store/": status}
        failed = run_job("curate", *given, by="python")
        assert failed.returncode == 1, failed.stderr
        assert_store_is_named(failed.stderr, f"{output}/_work/work/1-ingest/store/")
    finally:
        FaultyProxy.broken = {}
    again = run_job("curate", *given, by="python")
    assert again.returncode == 0, again.stderr
    assert "going on after" in again.stderr
    local = run_job("curate", "--input", SAMPLE, "--output", tmp_path / "out", *ARGUMENTS, "--no-report")
    assert local.returncode == 0
    found = pq.read_table(f"data/out-{status}/selected", filesystem=bucket)
    assert found.equals(pq.read_table(tmp_path / "out" / "selected"))


def assert_store_is_named(errors: str, path: str) -> None:
    (line,) = (line for line in errors.splitlines() if line.startswith("error: "))
    assert line.startswith(f"error: {path}"), line
    assert "cannot be read: " in line
    assert "AWS Error" in line
    assert "Traceback" not in errors


def test_credentials_in_a_path_are_refused_and_not_repeated(tmp_path):
    failed = run_job("curate", "--input", f"s3://key:{SECRET}@data/x", "--output", tmp_path / "out", *ARGUMENTS)
    assert failed.returncode == 2
    assert "credentials" in error_line(failed)
    assert SECRET not in failed.stderr


def test_an_attempt_that_dies_half_way_leaves_the_object_of_the_first_whole(bucket):
    """Enough is written for parts of it to go up at once, if anything did."""
    target, table = Location.of("s3://data/attempts/group"), pa.table({"n": range(1_000_000)})
    target.write_parquet(table)
    with pytest.raises(RuntimeError, match="half way"):
        die_half_way(target, table)
    assert target.read_parquet().equals(table)
    assert [entry.name for entry in Location.of("s3://data/attempts").entries()] == ["group"]


def die_half_way(target: Location, table: pa.Table) -> None:
    with target.writing() as stream, pq.ParquetWriter(stream, table.schema, compression="none") as to:
        to.write_table(table.slice(0, 900_000))
        raise RuntimeError("half way")


def test_an_output_on_object_storage_is_held_by_one_run(bucket, monkeypatch):
    """Also while its claim is renewed; then a claim that was taken away is gone for good."""
    output = Location.of("s3://data/held")
    monkeypatch.setattr(lock, "RENEWED_EVERY", 0.1)
    with held(output) as mine:
        (first,) = (output / "_lock").entries()
        while first.exists():
            time.sleep(0.02)
        with pytest.raises(UsageError, match="is being written by process"), held(output):
            pass
        mine.require()
        monkeypatch.setattr(lock, "RENEWED_EVERY", 100.0)
        time.sleep(0.5)
        for claim in (output / "_lock").entries():
            claim.delete()
        with pytest.raises(UsageError, match="is gone"):
            mine.require()
    assert not (output / "_lock").entries()
