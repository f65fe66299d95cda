"""A Spark standalone cluster by conf/standalone.conf: a worker is killed, clients are refused, nothing can be read."""

import base64
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import documents
import pyarrow.parquet as pq
import pyspark
import pytest
from conftest import ROOT, SAMPLE

pytestmark = pytest.mark.cluster
BUDGET = 400
SECRET = os.urandom(24).hex()
COMMANDS = {
    documents.understood(text).program.rsplit(".", 1)[-1]: text
    for block in documents.blocks()
    if block.document == "conf/standalone.conf"
    for text in block.commands
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def kill(process: subprocess.Popen) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.fixture
def cluster(tmp_path):
    """A master and two workers; ``properties`` with the secret; how to ``start`` more by the commands of the conf."""
    port = free_port()
    properties = tmp_path / "spark.conf"
    properties.touch(0o600)
    properties.write_text(
        (ROOT / "conf" / "standalone.conf").read_text()
        + f"spark.master spark://127.0.0.1:{port}\nspark.authenticate.secret {SECRET}\n"
        "spark.executor.cores 1\nspark.executor.memory 600m\nspark.ui.enabled false\n"
    )
    home = tmp_path / "home"
    home.mkdir()
    (home / "conf").symlink_to(ROOT / "conf")
    (home / ".venv").symlink_to(sys.prefix)
    environment = {**os.environ, "SPARK_HOME": str(Path(pyspark.__file__).parent)}
    environment |= {"SPARK_NO_DAEMONIZE": "1", "PATH": f"{home}/.venv/bin:{environment['PATH']}"}
    environment.pop("PYSPARK_PYTHON", None)
    started = []

    def start(name: str, command: str, **places: object) -> subprocess.Popen:
        places = {"master.example": "127.0.0.1", "7077": port, "conf/standalone.conf": properties} | places
        for named, given in places.items():
            command = command.replace(named, str(given))
        with open(tmp_path / f"{name}.log", "wb") as log:
            started.append(
                subprocess.Popen(
                    ["bash", "-c", command], stdout=log, stderr=log, cwd=home, env=environment, start_new_session=True
                )
            )
        return started[-1]

    try:
        start("master", COMMANDS["Master"] + " --webui-port 0")
        workers = []
        for number in range(2):
            scratch = tmp_path / f"worker-{number}"
            scratch.mkdir()
            more = " --cores 1 --memory 700m --webui-port 0"
            workers.append(start(f"worker-{number}", COMMANDS["Worker"] + more, **{"/scratch": scratch}))
        deadline = time.monotonic() + 120
        while (tmp_path / "master.log").read_text().count("Registering worker") < 2:
            assert time.monotonic() < deadline, (tmp_path / "master.log").read_text()
            time.sleep(0.1)
        yield SimpleNamespace(workers=workers, properties=properties, start=start, folder=tmp_path)
    finally:
        for process in reversed(started):
            kill(process)


def test_a_packaged_run_on_an_encrypted_cluster_survives_a_killed_worker(sample, oracle, cluster, tmp_path):
    """The command of the conf; executors get all they need from the archives, none of it from this checkout."""
    job = tmp_path / "away" / "curate.py"
    job.parent.mkdir()
    in_rounds = "from novelsum.selection import rounds\nrounds.WHOLE_BYTES = 0\n\n"  # as with a larger pool
    job.write_text((ROOT / "jobs" / "curate.py").read_text().replace("if __name__", in_rounds + "if __name__"))
    output, work, log = tmp_path / "out", tmp_path / "work", tmp_path / "submit.log"
    process = cluster.start(
        "submit",
        f"{COMMANDS['curate']} --budget {BUDGET} --block-rows 700",
        **{"s3://data/embeddings": SAMPLE, "s3://data/selected/2026-11-23": output, "s3://data/work": work},
        **{"jobs/curate.py": job, "dist/": f"{ROOT}/dist/"},
    )
    deadline = time.monotonic() + 300
    while len(list(work.glob("novelsum-*/4-begin/picks/*.parquet"))) < 2:
        assert time.monotonic() < deadline, log.read_text()
        assert process.poll() is None, log.read_text()
        time.sleep(0.05)
    kill(cluster.workers[0])
    assert process.wait(timeout=300) == 0, log.read_text()
    assert pq.read_table(output / "selected").column("id").to_pylist() == oracle(sample, BUDGET).picks
    for file in [log, *output.rglob("*"), *tmp_path.glob("*.log")]:
        assert file.is_dir() or SECRET.encode() not in file.read_bytes(), file


# --- who is refused, and what others can see --------------------------------------------------------------

CLIENT = """
import os, sys
from pathlib import Path
from pyspark.sql import SparkSession

folder = Path(sys.argv[1])
context = SparkSession.builder.getOrCreate().sparkContext
marker = context.broadcast((folder / "marker").read_text())
rows = context.parallelize(range(4), 2).map(lambda number: (number, marker.value)).partitionBy(2).collect()
assert [text for _, text in rows] == [marker.value] * 4
spilled = [path.read_bytes() for path in folder.glob("worker-*/**/shuffle_*.data")]
assert spilled
print("on disk:", any(marker.value.encode() in content for content in spilled))
"""
"""Sends a text to the executors, which send it to one another through their disks."""


def start_client(cluster: SimpleNamespace, name: str, *properties: str, marker: str = "") -> subprocess.Popen:
    """Submit the client with the properties of the cluster, and others that take their place."""
    (cluster.folder / "client.py").write_text(CLIENT)
    (cluster.folder / "marker").write_text(marker)
    own = cluster.folder / f"{name}.conf"
    own.write_text("\n".join([cluster.properties.read_text(), f"spark.pyspark.python {sys.executable}", *properties]))
    return cluster.start(name, f"spark-submit --properties-file {own} {cluster.folder}/client.py {cluster.folder}")


def test_a_client_without_the_secret_or_with_another_one_is_refused(cluster):
    """In a minute, in which Spark tries three times; no worker has started anything for it."""
    clients = {
        "without": start_client(cluster, "without", "spark.authenticate false", "spark.network.crypto.enabled false"),
        "another": start_client(cluster, "another", f"spark.authenticate.secret {os.urandom(24).hex()}"),
    }
    for name, client in clients.items():
        assert client.wait(timeout=240) not in (0, None), name
        log = (cluster.folder / f"{name}.log").read_text()
        assert "All masters are unresponsive" in log, log
    assert "Registered app" not in (cluster.folder / "master.log").read_text()
    assert not list(cluster.folder.glob("worker-*/app-*"))


def record(port: int, seen: bytearray) -> socket.socket:
    """Pass on to 127.0.0.1 what comes to the port of 127.0.0.2, and the answers, and remember every byte."""

    def pump(source: socket.socket, target: socket.socket) -> None:
        try:
            while content := source.recv(1 << 16):
                seen.extend(content)
                target.sendall(content)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # one side has ended

    def serve() -> None:
        while True:
            try:
                here = listening.accept()[0]
            except OSError:
                return  # closed
            there = socket.create_connection(("127.0.0.1", port))
            for pair in ((here, there), (there, here)):
                threading.Thread(target=pump, args=pair, daemon=True).start()

    listening = socket.create_server(("127.0.0.2", port))
    threading.Thread(target=serve, daemon=True).start()
    return listening


@pytest.mark.parametrize("encrypted", [True, False])
def test_what_is_sent_and_spilled_cannot_be_read_on_the_way(cluster, encrypted):
    """Between driver and executors, and on the executors' disks. Without the two properties of the conf it can be."""
    marker, seen = base64.b64encode(os.urandom(48)).decode(), bytearray()
    ports = {"spark.driver.port": free_port(), "spark.driver.blockManager.port": free_port()}
    given = [f"{name} {port}" for name, port in ports.items()]
    given += ["spark.driver.bindAddress 127.0.0.1", "spark.driver.host 127.0.0.2"]
    if not encrypted:
        given += ["spark.network.crypto.enabled false", "spark.io.encryption.enabled false"]
    recorded = [record(port, seen) for port in ports.values()]
    try:
        client = start_client(cluster, "client", *given, marker=marker)
        code = client.wait(timeout=240)
    finally:
        for listening in recorded:
            listening.close()
    log = (cluster.folder / "client.log").read_text()
    assert code == 0, log
    assert len(seen) > 10_000
    assert (marker.encode() in seen) == (not encrypted)
    assert f"on disk: {not encrypted}" in log
