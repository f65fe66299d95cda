"""Input files that are replaced while a run reads them, that cannot be read, or are something else than they seem."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT, SAMPLE, error_line, run_job

from novelsum.errors import DamageError, InputError, RunError, UsageError, error_of_a_task, unwritable
from novelsum.files.location import Location
from novelsum.files.source import look, open_density, open_selected, open_source, read_columns, read_rows
from novelsum.files.workplace import Workplace, check_output
from novelsum.report.output import write_selected
from novelsum.selection.rounds import Candidate

RNG = np.random.default_rng(0)
IDS = [f"n{i:02}" for i in range(40)]
VECTORS = RNG.standard_normal((40, 5)).astype(np.float32)
TEXTS = [f"text of {id_}" for id_ in IDS]


def put(path: Path, order: np.ndarray, **columns: list[str]) -> str:
    """Write the rows in some order beside the place and move them there."""
    beside = path.with_name("beside")
    table = pa.table({"id": IDS, "embedding": list(VECTORS), **columns}).take(pa.array(order))
    pq.write_table(table, beside, compression="none", use_dictionary=False)  # in any order it has the same size
    beside.rename(path)
    return str(path)


@pytest.fixture
def pool_file(tmp_path):
    return Path(put(tmp_path / "in.parquet", np.arange(40), text=TEXTS))


# --- replaced while they are read -------------------------------------------------------------------------


@pytest.mark.parametrize("opens", ["the input", "density factors", "samples"])
def test_a_file_that_is_replaced_after_the_first_look_is_named(pool_file, tmp_path, opens):
    """By the same rows in another order: at the footers, while a chunk is read, and where rows are fetched."""
    if opens == "density factors":
        table = pq.read_table(pool_file).append_column("density", pa.array(np.ones(40)))
        pq.write_table(table, pool_file)
    seen = look(str(pool_file))
    open_ = {
        "the input": lambda: open_source(str(pool_file), "id", "embedding", seen),
        "density factors": lambda: open_density(str(pool_file), "id", seen),
        "samples": lambda: open_selected(seen, "id", "embedding"),
    }[opens]
    source = open_()
    (chunk,) = source.chunks(1000)
    assert sum(len(batch) for batch in read_columns(source, chunk, ["id"])) == 40
    reading = read_columns(source, chunk, ["id"])
    next(reading)
    put(pool_file, np.arange(40)[::-1])
    for read in (
        open_,
        lambda: list(reading),
        lambda: list(read_columns(source, chunk, ["id"])),
        lambda: read_rows(source, 0, np.array([3]), ["n03"], ["id"]),
    ):
        with pytest.raises(InputError, match=rf"{pool_file} was written again while the run read it; .* run again"):
            read()


def test_a_replaced_file_of_the_same_size_and_time_is_told_by_its_ids(pool_file, spark, tmp_path):
    """Wherever rows are fetched; no selection is written."""
    source = open_source(str(pool_file), "id", "embedding")
    before = pool_file.stat()
    picks = [Candidate(row, IDS[row], 0.0, 1.0, 0, row) for row in (7, 2)]
    write_selected(spark, source, picks, "id", Location.of(str(tmp_path / "good")))
    good = pq.read_table(tmp_path / "good" / "selected")
    assert good.column("text").to_pylist() == [TEXTS[7], TEXTS[2]]
    put(pool_file, np.arange(40)[::-1], text=TEXTS)
    os.utime(pool_file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert pool_file.stat().st_size == before.st_size
    with pytest.raises(InputError, match=rf"{pool_file} was written again"):
        read_rows(source, 0, np.array([7]), ["n07"], ["text"])
    with pytest.raises(Exception, match="InputError") as raised:
        write_selected(spark, source, picks, "id", Location.of(str(tmp_path / "bad")))
    assert f"{pool_file} was written again" in str(error_of_a_task(raised.value))
    assert not (tmp_path / "bad" / "selected").exists()


def start(job: str, *arguments: object, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(ROOT / "jobs" / f"{job}.py"), *map(str, arguments)]
    pipes = {"stderr": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, **pipes, env={**os.environ, **environment})


def run_until(file: Path, act, job: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a job to its end, and act as soon as a file is there."""
    process = start(job, *arguments, **environment)
    while not file.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.001)
    act()
    output, errors = process.communicate(timeout=300)
    return subprocess.CompletedProcess([], process.returncode, output, errors)


@pytest.mark.more
def test_a_run_whose_input_is_replaced_ends_without_a_result(tmp_path):
    """The same rows in another order, by a rename, when the density is done: exit 3 with the name of the file."""
    source, output = tmp_path / "in", tmp_path / "out"
    shutil.copytree(SAMPLE, source)
    file = sorted(source.glob("*.parquet"))[0]

    def replace() -> None:
        table = pq.read_table(file)
        pq.write_table(table.take(pa.array(np.arange(len(table))[::-1])), tmp_path / "beside")
        (tmp_path / "beside").rename(file)

    given = ("--input", source, "--output", output, "--budget", 60, "--text-column", "text")
    done = run_until(output / "_work/work/2-density/done.json", replace, "curate", *given)
    assert done.returncode == 3, done.stderr
    assert f"{file} was written again while the run read it" in error_line(done)
    assert not (output / "_MANIFEST.json").exists()
    again = run_job("curate", *given)
    assert again.returncode == 0, again.stderr
    texts = dict(zip(*(pq.read_table(source).column(name).to_pylist() for name in ("id", "text")), strict=True))
    rows = pq.read_table(output / "selected").to_pylist()
    assert len(rows) == 60
    assert all(row["text"] == texts[row["id"]] for row in rows)


# --- what the system says ---------------------------------------------------------------------------------

FAULTY_DISK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Reads of files whose path holds FAULTY fail while the file FAULTY_WHILE is there. */
static int fails(int fd) {
  char link[64], path[4096];
  const char *mark = getenv("FAULTY"), *given = getenv("FAULTY_WHILE");
  if (!mark || !given || access(given, F_OK)) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t size = readlink(link, path, sizeof path - 1);
  if (size <= 0) return 0;
  path[size] = 0;
  return strstr(path, mark) != NULL;
}
#define FAULTY(name, declared, passed) \
  ssize_t name declared { \
    ssize_t (*real) declared = dlsym(RTLD_NEXT, #name); \
    if (fails(fd)) { errno = EIO; return -1; } \
    return real passed; \
  }
FAULTY(read, (int fd, void *to, size_t size), (fd, to, size))
FAULTY(pread, (int fd, void *to, size_t size, off_t at), (fd, to, size, at))
FAULTY(pread64, (int fd, void *to, size_t size, off64_t at), (fd, to, size, at))
"""


@pytest.fixture(scope="session")
def faulty_disk(tmp_path_factory):
    """The environment of a process whose system fails to read the files that ``FAULTY`` says, compiled here."""
    compiler = shutil.which("gcc")
    if compiler is None:
        (pytest.fail if "CI" in os.environ else pytest.skip)("this machine has no gcc")
    folder = tmp_path_factory.mktemp("disk")
    (folder / "disk.c").write_text(FAULTY_DISK)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", folder / "disk.so", folder / "disk.c", "-ldl"], check=True)
    return {"LD_PRELOAD": str(folder / "disk.so")}


READS = """
import sys
from pathlib import Path
from novelsum.selection import picklog
from novelsum.settings import Settings
from novelsum.files.source import open_source, read_columns
from novelsum.density.state import state_of
from novelsum.files.location import Location
from novelsum.files.store import read_block
from novelsum.files.workplace import Workplace

path, work, fails = sys.argv[1], Location(sys.argv[2]), Path(sys.argv[3])
source = open_source(path, "id", "embedding")
reads = {
    "footer": lambda: open_source(path, "id", "embedding"),
    "pages": lambda: [list(read_columns(source, chunk, ["id"])) for chunk in source.chunks(100)],
    "block": lambda: read_block(work, "b.parquet"),
    "log": lambda: picklog.recover(work),
    "state": lambda: state_of(Settings(update=str(work)), None).__enter__(),
    "run": lambda: Workplace.of(work, None, {}).held(overwrite=True, keep_work=False).__enter__(),
}
fails.touch()
for name, read in reads.items():
    try:
        read()
    except Exception as error:
        print(name, type(error).__name__, error)
fails.unlink()
print(len(reads["pages"]()), len(reads["log"]()[0]))
"""


def test_a_disk_that_cannot_read_is_not_told_as_damage(faulty_disk, pool_file, tmp_path):
    """EIO: of the input, the store, the pick log, a state and unfinished work; afterwards all are as they were."""
    work = tmp_path / "work"
    for folder in ("store", "picks", "_work/work/1-ingest"):
        (work / folder).mkdir(parents=True)
    (work / "_work" / "run.json").write_text("{}")
    (work / "_work" / "work" / "1-ingest" / "done.json").write_text("{}")
    shutil.copy(pool_file, work / "store" / "b.parquet")
    picked = {"rows": [4], "powered": [1.0], "quality": [1.0], "groups": [0], "novelty": [0.0], "vector": [[1.0, 2.0]]}
    log = pa.table(picked).cast(pa.schema([*list(pa.table(picked).schema)[:-1], ("vector", pa.list_(pa.float32(), 2))]))
    pq.write_table(log, work / "picks" / "000000000.parquet")
    (work / "_STATE.json").write_text("{}")
    environment = {**os.environ, **faulty_disk, "FAULTY": str(tmp_path), "FAULTY_WHILE": str(tmp_path / "fails")}
    command = [sys.executable, "-c", READS, str(pool_file), str(work), str(tmp_path / "fails")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    footer, pages, block, log, state, run, after = done.stdout.splitlines()
    for line, file in (
        (footer, pool_file),
        (pages, pool_file),
        (block, work / "store" / "b.parquet"),
        (log, work / "picks" / "000000000.parquet"),
    ):
        assert f" RunError {file} cannot be read: " in line
        assert "Input/output error" in line
    assert f"state OSError [Errno 5] Input/output error: '{work}/_STATE.json'" in state
    assert f"run OSError [Errno 5] Input/output error: '{work}/_work/run.json'" in run
    assert (work / "_work" / "work" / "1-ingest" / "done.json").exists()
    assert after == "1 1"


def test_contents_that_came_whole_and_cannot_be_parsed_are_damaged(pool_file):
    """pyarrow raises OSError here, too."""
    source = open_source(str(pool_file), "id", "embedding")
    (chunk,) = source.chunks(100)
    before = pool_file.stat()
    content = bytearray(pool_file.read_bytes())
    start = pq.ParquetFile(pool_file).metadata.row_group(0).column(0).data_page_offset
    content[start : start + 20] = b"\xff" * 20
    pool_file.write_bytes(content)
    os.utime(pool_file, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(InputError, match=rf"{pool_file} is not a whole Parquet file"):
        list(read_columns(source, chunk, ["id"]))
    with pytest.raises(DamageError, match=rf"{pool_file} is damaged .* run again to start over"):
        Location.of(str(pool_file)).read_parquet(["id"])


def test_pages_are_held_against_their_checksums(tmp_path):
    """One bit of a number, which parses as well as before."""
    path = tmp_path / "in.parquet"
    table = pa.table({"id": range(1000), "embedding": RNG.random((1000, 2)).tolist()})
    pq.write_table(table, path, compression="none", use_dictionary=False, write_page_checksum=True)
    content = bytearray(path.read_bytes())
    content[content.index((500).to_bytes(8, "little"))] ^= 1
    path.write_bytes(content)
    source = open_source(str(path), "id", "embedding")
    with pytest.raises(InputError, match=rf"{path} is not a whole Parquet file .*CRC"):
        list(read_columns(source, source.chunks(1000)[0], ["id"]))


def test_an_output_that_is_named_wrongly_is_told_apart_from_storage_that_fails():
    """Exit 2 is for the user, exit 1 for the next try."""
    for error in (PermissionError(13, "Permission denied"), NotADirectoryError(20, "Not a directory"), OSError(30, "")):
        assert isinstance(unwritable("--output x cannot be written", error), UsageError)
    for error in (OSError(5, "Input/output error"), OSError("AWS Error SLOW_DOWN"), OSError(116, "Stale file handle")):
        assert isinstance(unwritable("--output x cannot be written", error), RunError)


def test_a_file_that_is_gone_is_not_told_as_damage(pool_file):
    source = open_source(str(pool_file), "id", "embedding")
    (chunk,) = source.chunks(100)
    pool_file.unlink()
    with pytest.raises(RunError, match=rf"{pool_file} is gone since the run first saw it; put it back"):
        list(read_columns(source, chunk, ["id"]))


@pytest.mark.more
@pytest.mark.parametrize("what", ["input", "store"])
def test_a_run_goes_on_when_the_disk_reads_again(faulty_disk, tmp_path, what):
    """EIO once the density is done: exit 1 with path and cause, and the same command ends with the same picks."""
    source, output, fails = tmp_path / "in", tmp_path / "out", tmp_path / "fails"
    shutil.copytree(SAMPLE, source)
    given = ("--input", source, "--output", output, "--budget", 60, "--text-column", "text", "--no-report")
    mark = {"input": source, "store": output / "_work/work/1-ingest/store"}[what]
    environment = {**faulty_disk, "FAULTY": str(mark), "FAULTY_WHILE": str(fails)}
    failed = run_until(output / "_work/work/2-density/done.json", fails.touch, "curate", *given, **environment)
    assert failed.returncode == 1, failed.stderr
    assert str(mark) in error_line(failed)
    assert "Input/output error" in error_line(failed)
    fails.unlink()
    done = run_job("curate", *given)
    assert done.returncode == 0, done.stderr
    assert "going on after" in done.stderr
    assert run_job("curate", *given[:2], "--output", tmp_path / "whole", *given[4:]).returncode == 0
    assert pq.read_table(output / "selected").equals(pq.read_table(tmp_path / "whole" / "selected"))


def test_what_the_system_says_to_a_task_or_the_driver_is_one_sentence(spark):
    """Whoever in a task came upon it; anything else is no error of the system's."""

    def fail(number: int) -> None:
        raise (OSError(5, "Input/output error", "/data/x"), pa.ArrowInvalid("not a float\nat all"), KeyError("x"))[
            number
        ]

    told = []
    for number in range(3):
        with pytest.raises(Exception, match="Traceback") as raised:
            spark.sparkContext.parallelize([number], 1).foreach(fail)
        told.append(error_of_a_task(raised.value))
    assert str(told[0]) == "[Errno 5] Input/output error: '/data/x'; run again to go on once that is mended"
    assert str(told[1]) == "not a float; run again to go on once that is mended"
    assert told[2] is None
    assert str(error_of_a_task(PermissionError(13, "Permission denied", "/y"))).startswith(
        "[Errno 13] Permission denied"
    )
    assert error_of_a_task(KeyError("x")) is None


def test_a_file_that_may_not_be_read_is_named_with_the_reason(tmp_path, pool_file):
    """Exit 1: the same command goes on once the permission is there. The job runs without root's right to read all."""
    bound = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    pool_file.chmod(0)
    if not shutil.which("setpriv") or subprocess.run([*bound, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine has no setpriv, or does not allow it")
    command = [sys.executable, str(ROOT / "jobs" / "curate.py"), "--input", str(pool_file)]
    command = [*bound, *command, "--output", str(tmp_path / "out"), "--budget", "5"]
    failed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert failed.returncode == 1, failed.stderr
    assert f"{pool_file} cannot be read: permission denied; run again to go on" in error_line(failed)


# --- files that are something else ------------------------------------------------------------------------


def test_a_file_that_is_no_parquet_is_told_apart_from_one_half_written(tmp_path):
    """A note beside the data; a checksum is skipped, and a file may be called anything."""
    folder = tmp_path / "in"
    folder.mkdir()
    put(folder / "part-0", np.arange(40))
    for name in ("part-0.crc", ".part-0.crc", "_SUCCESS"):
        (folder / name).write_bytes(b"crc\0")
    assert open_source(str(folder), "id", "embedding").rows == 40
    (folder / "README.txt").write_text("What this is\n")
    words = rf"{folder}/README.txt is no Parquet file, it begins with b'What'; take it out of the input, or name"
    with pytest.raises(InputError, match=words):
        open_source(str(folder), "id", "embedding")
    for content in ((folder / "part-0").read_bytes()[:-9], b""):
        (folder / "README.txt").write_bytes(content)
        with pytest.raises(InputError, match=r"README.txt is not a whole Parquet file .* half written"):
            open_source(str(folder), "id", "embedding")


OTHER_TYPES = {
    "string_view": (pa.string_view(), pa.list_view(pa.float32())),
    "large_string": (pa.large_string(), pa.large_list(pa.float32())),
    "dictionary": (pa.dictionary(pa.int32(), pa.string()), pa.list_(pa.float64())),
    "large_list_view": (pa.string(), pa.large_list_view(pa.float64())),
}


@pytest.mark.parametrize(
    "kinds", [kind if kind == "string_view" else pytest.param(kind, marks=pytest.mark.more) for kind in OTHER_TYPES]
)
def test_ids_texts_and_embeddings_may_have_any_type_of_their_kind(tmp_path, engine, spark, kinds):
    """The same picks with the same columns."""
    text, embedding = OTHER_TYPES[kinds]
    found = []
    for name, types in (("plain", (pa.string(), pa.list_(pa.float32()))), ("other", (text, embedding))):
        path = str(tmp_path / f"{name}.parquet")
        groups = [f"g{i % 3}" for i in range(40)]
        columns = [pa.array(values, pa.string()) for values in (IDS, TEXTS, groups)]
        columns = [c.dictionary_encode() if pa.types.is_dictionary(types[0]) else c.cast(types[0]) for c in columns]
        vectors = pa.array(VECTORS.tolist(), types[1])
        table = pa.table([*columns, vectors], names=["id", "text", "group", "embedding"])
        pq.write_table(table, path, row_group_size=16)
        outcome = engine(path, 6, neighbors=3, group_column="group", quota=("g1=2:3",))
        source = open_source(path, "id", "embedding")
        places = [IDS.index(id_) for id_ in outcome.picks]
        picks = [Candidate(row, IDS[row], 0.0, 1.0, 0, row) for row in places]
        write_selected(spark, source, picks, "id", Location.of(str(tmp_path / name)))
        selected = pq.read_table(tmp_path / name / "selected").select(["id", "text", "group"])
        found.append((outcome.picks, selected.to_pylist()))
    assert found[0] == found[1]


def test_integers_in_a_dictionary_are_integer_ids_and_bytes_are_none(tmp_path):
    path = tmp_path / "in.parquet"
    for ids, whole in ((pa.array(range(40)).dictionary_encode(), True), (pa.array(IDS, pa.string_view()), False)):
        pq.write_table(pa.table({"id": ids, "embedding": VECTORS.tolist()}), path)
        assert open_source(str(path), "id", "embedding").integer_ids is whole
    pq.write_table(
        pa.table({"id": pa.array([id_.encode() for id_ in IDS], pa.binary_view()), "embedding": TEXTS}), path
    )
    with pytest.raises(InputError, match=r"column 'id' of .* has type binary_view, expected an integer"):
        open_source(str(path), "id", "embedding")


# --- the work directory and the input ---------------------------------------------------------------------


@pytest.mark.parametrize("option", ["--input", "--reference", "--already-selected", "--update", "--density"])
def test_a_work_directory_in_what_is_read_is_refused(tmp_path, option):
    """Before anything is written: the run's own store would become part of its input."""
    data = tmp_path / "data"
    data.mkdir()
    put(tmp_path / "in.parquet", np.arange(40))
    put(data / "in.parquet", np.arange(40))
    job, more = {
        "--update": ("estimate_density", ()),
        "--density": ("select_subset", ("--budget", 5)),
    }.get(option, ("curate", ("--budget", 5)))
    given = {"--input": tmp_path / "in.parquet", option: data}
    arguments = [argument for pair in given.items() for argument in pair]
    failed = run_job(job, *arguments, *more, "--output", tmp_path / "out", "--work-dir", data / "below")
    assert failed.returncode == 2, failed.stderr
    assert f"--work-dir {data / 'below'} and {data} lie in one another" in error_line(failed)
    assert sorted(entry.name for entry in data.iterdir()) == ["in.parquet"]
    assert not (tmp_path / "out").exists()


def test_a_work_directory_is_refused_in_both_directions_and_by_globs(tmp_path):
    """Beside the input it is welcome, also in a folder that holds both."""
    output, base = str(tmp_path / "out"), tmp_path / "base"
    work = Workplace.of(Location.of(output), str(base / "data"), {}).work
    for path in (base / "data", base / "dat*" / "*", base, work.uri, f"{work}/store"):
        with pytest.raises(UsageError, match=r"--work-dir .* lie in one another"):
            check_output(output, [str(path)], str(base / "data"))
    for path in (base / "data" / "in", base / "data" / "*.parquet", base / "data2"):
        assert check_output(output, [str(path)], str(base / "data")) == Location.of(output)
    assert check_output(output, [str(tmp_path / "*" / "*")]) == Location.of(output)  # its own files are left out
