"""Spark for a job, whether plain Python or spark-submit started it, or somebody's program lends its own.

No job asks Spark SQL, whose start in Java takes as long as Spark's: all work with the context alone.
"""

import atexit
import os
import re
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from threading import Lock, Thread
from typing import Any

from pyspark import SparkConf, SparkContext
from pyspark.java_gateway import launch_gateway
from pyspark.sql.utils import is_remote

from novelsum.compiled import import_ahead
from novelsum.errors import UsageError
from novelsum.spark import interrupt
from novelsum.spark.local import removed_after

_PACKAGE = Path(__file__).resolve().parents[1]
_LOGGING = _PACKAGE.parent / "conf" / "log4j2.properties"
_NOISE = b"WARNING: Using incubator modules: jdk.incubator.vector"
"""What Java says of an option that Spark gives it, and has no option to be silent of."""
_TRACEBACK = b"Traceback (most recent call last):"
_OF_DAEMON = re.compile(rb'  File ".*pyspark/daemon\.py", line')
_LAST_LINE = re.compile(rb"\w+(Error|Exit|Interrupt)\b")
"""A worker whose connection was closed while it wrote says so in a traceback. What went wrong comes another way."""
_BLAS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")
"""One thread for each core that Spark gives a task, or tasks would fight over the cores."""

_LENT: ContextVar[SparkContext | None] = ContextVar("the Spark that is lent", default=None)
_lending = Lock()
_borrowers = 0
_own_environment: dict[str, str] = {}
_own_python = ""
_shipped: set[str] = set()
"""The applications that have this package."""


def start(job: str, master: str | None) -> SparkContext:
    """Start Spark for the job of that name and make this package importable on every executor.

    Under spark-submit the master and all properties are the submitter's but for the name and the threads of BLAS, and
    for the master where ``master`` names one: these are set over what the submitter says. In plain Python the master is
    ``master``, or this machine with all its cores, where a task that failed is tried again as on a cluster.
    """
    lent_one = _LENT.get()
    if lent_one is not None:
        return lent_one
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    if is_remote():
        raise _no_connect("the session of this platform is one", "use another kind of compute")
    import_ahead()  # while Java starts
    submitted = "PYSPARK_GATEWAY_PORT" in os.environ
    conf = SparkConf().setAppName(f"novelsum {job}")
    if not submitted:
        conf.setMaster(master or "local[*,4]")
        conf.set("spark.ui.showConsoleProgress", "false")
        java = [f"-Dlog4j2.configurationFile={_LOGGING.as_uri()}"]
        if not master or master.startswith("local"):
            conf.set("spark.driver.bindAddress", "127.0.0.1")
            conf.set("spark.driver.host", "127.0.0.1")
            # By TCP half the time of a small job is spent waiting for acknowledgements. Spark 4.1 and newer know this.
            conf.set("spark.python.unix.domain.socket.enabled", "true")
            # Java only hands bytes to and fro: its fast compiler will do, and a run starts in half the time.
            java.append("-XX:TieredStopAtLevel=1")
        conf.set("spark.driver.extraJavaOptions", " ".join(java))
    elif master:
        conf.setMaster(master)
    for variable, threads in _blas_threads().items():
        conf.set(f"spark.executorEnv.{variable}", threads)
    with interrupt.deferred():
        if not submitted and SparkContext._gateway is None:
            SparkContext._ensure_initialized(gateway=_launched(conf))
        context = SparkContext.getOrCreate(conf)
    _ship(context)
    return context


def stop(context: SparkContext) -> None:
    """Stop Spark, unless it is lent; after a signal without a word of the tasks that this ends."""
    if context is _LENT.get():
        return
    if interrupt.came():
        context.setLogLevel("OFF")
    context.stop()


@contextmanager
def lent(context: SparkContext) -> Iterator[None]:
    """Let jobs run on a Spark that is there and goes on living; what they leave in scratch is removed at the end.

    It gets this package, once, and keeps it. As its properties are what they are, the Python of the tasks within is
    told by its environment how many threads BLAS may have: Spark starts workers apart for each environment. On this
    machine it is the caller's own Python, unless another was named: Spark would take the first of the PATH.
    """
    import_ahead(is_ours=False)  # apart from what an interrupt may cut
    token = _LENT.set(context)
    _ship(context)
    _borrow(context)
    try:
        with removed_after(context):
            yield
    finally:
        _give_back(context)
        _LENT.reset(token)


def _borrow(context: SparkContext) -> None:
    global _borrowers, _own_python
    with _lending:
        if not _borrowers:
            _own_environment.clear()
            _own_environment.update(context.environment)
            context.environment.update({**_blas_threads(), **_own_environment})
            _own_python = context.pythonExec
            is_named = os.environ.get("PYSPARK_PYTHON") or context.getConf().get("spark.pyspark.python")
            if str(context.master).startswith("local") and not is_named:
                context.pythonExec = sys.executable
        _borrowers += 1


def _give_back(context: SparkContext) -> None:
    global _borrowers
    with _lending:
        _borrowers -= 1
        if not _borrowers:
            context.environment.clear()
            context.environment.update(_own_environment)
            context.pythonExec = _own_python


def _blas_threads() -> dict[str, str]:
    return dict.fromkeys(_BLAS, os.environ.get("OPENBLAS_NUM_THREADS", "1"))


def _ship(context: SparkContext) -> None:
    """Make this package importable on every executor, if it is not yet."""
    application = str(context.applicationId)
    if _PACKAGE.is_dir() and application not in _shipped:
        context.addPyFile(_zipped(_PACKAGE.name))
        _shipped.add(application)


def _launched(conf: SparkConf) -> Any:
    """Java, started as PySpark does it. What it has to say comes through here, but for the noise."""
    reading, writing = os.pipe()
    Thread(target=_pass_on, args=(reading,), daemon=True).start()
    try:
        return launch_gateway(conf, {"stderr": writing})  # type: ignore[no-untyped-call]
    finally:
        os.close(writing)


def _pass_on(reading: int) -> None:
    """Pass on what Java and its workers say but the noise: several may speak at once, and a kill cuts them short."""
    begun = unfinished = 0  # tracebacks of which one line is known; those of workers
    with open(reading, "rb") as lines:
        for line in lines:
            is_inner = line.startswith(b"  ")
            if line.rstrip() == _TRACEBACK:
                begun += 1
            elif _OF_DAEMON.match(line):
                begun, unfinished = 0, unfinished + begun
            elif unfinished and is_inner:
                continue
            elif unfinished and _LAST_LINE.match(line):
                unfinished -= 1
            elif line.rstrip() != _NOISE:
                os.write(2, (_TRACEBACK + b"\n") * (begun if is_inner else 0) + line)
                begun = 0


def require_classic(master: str | None) -> None:
    """Raise UsageError where Spark would start, or be reached, as Spark Connect."""
    if os.environ.get("SPARK_REMOTE"):
        raise _no_connect("SPARK_REMOTE is set", "unset it")
    if (master or "").startswith("sc://"):
        raise _no_connect(f"--master {master} is a server of it", "name the master itself")
    if "PYSPARK_REMOTE_INIT_CONF_LEN" in os.environ:  # how spark-submit hands its properties to a client of Connect
        raise _no_connect("spark-submit has --remote, spark.remote or spark.api.mode=connect", "leave that out")
    mode = os.environ.get("SPARK_API_MODE", "").lower()
    if mode == "connect" or (mode != "classic" and os.environ.get("SPARK_CONNECT_MODE") == "1"):
        raise _no_connect("the environment says so in SPARK_API_MODE or SPARK_CONNECT_MODE", "unset both")


def _no_connect(found: str, instead: str) -> UsageError:
    return UsageError(
        f"this cannot run on Spark Connect, which has no RDDs ({found}); {instead} and start with --master or by "
        "spark-submit, on Databricks on a cluster of dedicated access mode"
    )


def write_zip(path: Path) -> None:
    """Write this package as a zip file that ``--py-files`` takes; the same modules give the same bytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for module in sorted(_PACKAGE.rglob("*.py")):
            entry = zipfile.ZipInfo(str(module.relative_to(_PACKAGE.parent)))
            archive.writestr(entry, module.read_bytes(), zipfile.ZIP_DEFLATED)


def _zipped(name: str) -> str:
    """The package as a zip file in a temporary folder that is removed when the process ends."""
    folder = tempfile.mkdtemp(prefix="novelsum-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = Path(folder) / f"{name}.zip"
    write_zip(path)
    return str(path)
