"""A Spark standalone cluster on loopback, authenticated and encrypted, with the packaged engine; a worker is killed."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pyspark
import pytest
from conftest import ROOT, SAMPLE

import novelsum

pytestmark = pytest.mark.cluster
BUDGET = 400
SECRET = os.urandom(24).hex()
SPARK = Path(pyspark.__file__).parent


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def daemon(folder: Path, environment: dict[str, str], *arguments: object) -> subprocess.Popen:
    command = [SPARK / "bin" / "spark-class", *arguments]
    with open(folder / f"{arguments[0]}-{free_port()}.log", "wb") as log:
        return subprocess.Popen(
            [str(part) for part in command], stdout=log, stderr=log, env=environment, start_new_session=True
        )


def kill(process: subprocess.Popen) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.fixture
def cluster(tmp_path):
    """The master's address, its two workers, and the properties that a submitter needs."""
    properties = tmp_path / "spark.conf"
    properties.touch(0o600)
    properties.write_text(
        f"spark.authenticate true\nspark.authenticate.secret {SECRET}\n"
        "spark.network.crypto.enabled true\nspark.io.encryption.enabled true\n"
        "spark.executor.memory 600m\nspark.ui.enabled false\n"
        "spark.pyspark.python ./environment/bin/python\n"
        f"spark.pyspark.driver.python {sys.executable}\n"
    )
    port = free_port()
    address = f"spark://127.0.0.1:{port}"
    environment = {**os.environ, "SPARK_LOCAL_IP": "127.0.0.1", "SPARK_NO_DAEMONIZE": "1", "SPARK_HOME": str(SPARK)}
    environment.pop("PYSPARK_PYTHON", None)
    started = []
    try:
        master = ("--host", "127.0.0.1", "--port", port, "--webui-port", 0, "--properties-file", properties)
        started.append(daemon(tmp_path, environment, "org.apache.spark.deploy.master.Master", *master))
        for number in range(2):
            folder = tmp_path / f"worker-{number}"
            local = {**environment, "SPARK_LOCAL_DIRS": str(folder / "scratch"), "SPARK_WORKER_DIR": str(folder)}
            (folder / "scratch").mkdir(parents=True)
            worker = ("-c", 1, "-m", "700m", "--webui-port", 0, "--properties-file", properties, address)
            started.append(daemon(tmp_path, local, "org.apache.spark.deploy.worker.Worker", *worker))
        yield address, started[1:], properties, environment
    finally:
        for process in reversed(started):
            kill(process)


def test_a_packaged_run_on_an_encrypted_cluster_survives_a_killed_worker(sample, oracle, cluster, tmp_path):
    """Client mode; executors get all they need from the archives, none of it from this checkout."""
    address, workers, properties, environment = cluster
    job = tmp_path / "away" / "curate.py"
    job.parent.mkdir()
    job.write_bytes((ROOT / "jobs" / "curate.py").read_bytes())
    output, work = tmp_path / "out", tmp_path / "work"
    command = [SPARK / "bin" / "spark-submit", "--master", address, "--properties-file", properties]
    command += ["--py-files", ROOT / "dist" / f"novelsum-{novelsum.__version__}.zip"]
    command += ["--archives", f"{ROOT / 'dist' / 'environment.tar.gz'}#environment"]
    command += [job, "--input", SAMPLE, "--budget", BUDGET, "--output", output, "--work-dir", work, "--block-rows", 700]
    log = tmp_path / "submit.log"
    with open(log, "w") as to:
        process = subprocess.Popen(
            [str(part) for part in command], stdout=to, stderr=to, cwd=job.parent, env=environment
        )
    deadline = time.monotonic() + 300
    while len(list(work.glob("novelsum-*/picks/*.parquet"))) < 2:
        assert time.monotonic() < deadline, log.read_text()
        assert process.poll() is None, log.read_text()
        time.sleep(0.05)
    kill(workers[0])
    assert process.wait(timeout=300) == 0, log.read_text()
    assert pq.read_table(output / "selected").column("id").to_pylist() == oracle(sample, BUDGET).picks
    for file in [log, *output.rglob("*"), *tmp_path.glob("*.log")]:
        assert file.is_dir() or SECRET.encode() not in file.read_bytes(), file
