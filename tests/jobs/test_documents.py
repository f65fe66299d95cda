"""The pages and conf/ are true: each command runs from the document's own text, each name and number is checked."""

import functools
import json
import os
import re
import runpy
import subprocess
import sys
import tarfile
import types
from collections.abc import Callable
from pathlib import Path

import documents
import numpy as np
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pyspark
import pytest
from conftest import ROOT, SAMPLE, _gateway
from documents import PAGES, SHOWN, SUBMIT, TRANSLATED, Block, Command, of_page, understood

import novelsum
from novelsum import settings
from novelsum.density import near
from novelsum.files import lock
from novelsum.files.ingest import BLOCK_BYTES
from novelsum.report import projection, survey
from novelsum.report.output import metrics
from novelsum.selection import check, contenders, ranking, rounds, sketch
from novelsum.selection.contenders import RANKED_BYTES, TIE, contender_bytes, list_bytes
from novelsum.selection.picked import pick_bytes
from novelsum.selection.pickfile import file_bytes
from novelsum.selection.scratch import block_bytes
from novelsum.spark import progress, session

BLOCKS = documents.blocks()
TYPED = [block for block in BLOCKS if not block.is_shown and block.language != "python"]
PACKAGED = {f"dist/novelsum-{novelsum.__version__}.zip", "dist/environment.tar.gz"}
"""What `make package` makes."""

# --- what stands for what, where the commands run ---------------------------------------------------------

PLACES = {
    "local:///opt/novelsum/": "",
    "/opt/novelsum/": "",
    "/etc/novelsum/": "conf/",
    "s3://data/": "data/",
    **{f"/{name}/": f"{name}/" for name in ("data", "curated", "density")},
}
"""A folder of the documents and that of the tests, below the folder in which a command runs."""
WORDS = {
    "--budget 10000": "--budget 10",
    "budget = 10000": "budget = 10",
    "--update DIR --remove gone.parquet": "--update /density/state --remove /data/gone.parquet",
}
"""What else is another thing in the tests, whose data are small."""
BEFORE = {"docs/density.md": ("docs/jobs/estimate_density.md", "--save-state")}
"""What a document takes for granted: that the commands of another with these words ran before its own."""
CLUSTERS = {"conf/kubernetes.conf": "--master local[2] --deploy-mode client"}
"""What stands for a cluster that is not here. YARN and standalone have tests of their own, with executors."""
ELSEWHERE = {
    ("README.md", "make "): "what make does is checked, and what `make run` runs is run",
    ("CONTRIBUTING.md", "make "): "what make does is checked",
    ("conf/novelsum.service", "systemctl "): "systemd-analyze verifies the units",
    ("conf/three_nights.sh", "conf/three_nights.sh "): "density/test_state.py",
    ("docs/operations.md", "$nights/"): "density/test_state.py",
    ("conf/standalone.conf", "jobs/curate.py"): "spark/test_standalone.py",
    ("conf/standalone.conf", "spark-class org.apache.spark.deploy.master.Master"): "spark/test_standalone.py",
    ("conf/standalone.conf", "spark-class org.apache.spark.deploy.worker.Worker"): "spark/test_standalone.py",
}
"""Commands of a document, by words in them, that run in another way than by their block alone, and where."""
IN_PASSING = ("export", "shell")
"""What runs with the commands beside it."""


def stand_in(text: str, folder: Path) -> str:
    """The text with the places and numbers of the tests."""
    for named, given in WORDS.items():
        text = text.replace(named, given)
    for named, given in PLACES.items():
        text = re.sub(rf"(?<![\w.:/-]){re.escape(named)}", f"{folder}/{given}", text)
    return text


def commands(block: Block) -> list[Command]:
    return [understood(text) for text in block.commands]


def is_elsewhere(document: str, command: Command) -> bool:
    return any(document == where and words in command.text for where, words in ELSEWHERE)


def is_run(block: Block) -> bool:
    """Whether the block runs as a script of its own text."""
    of_yarn = any(command.options.get("--properties-file") == "conf/yarn.conf" for command in commands(block))
    return not of_yarn and not any(is_elsewhere(block.document, command) for command in commands(block))


def name_of(block: Block) -> str:
    return f"{block.document}:{block.commands[-1][:60]}"


PARSED: dict[str, Callable[..., settings.Settings | settings.MeasureSettings | settings.EmbedSettings]] = {
    **{job: functools.partial(settings.parse, job) for job in settings.ALL},
    "measure_diversity": settings.parse_measure,
    "embed_text": settings.parse_embed,
}
SUBMITTED = [(block, command) for block in TYPED for command in commands(block) if command.is_submitted]
RUN = [block for block in TYPED if is_run(block)]
YARN = {command.text: command for _, command in SUBMITTED if command.options["--properties-file"] == "conf/yarn.conf"}
ONCE = [
    block
    for number, block in enumerate(RUN)
    if not any(
        set(block.commands) < set(other.commands) or (block.commands == other.commands and at < number)
        for at, other in enumerate(RUN)
    )
]
"""Without blocks all of whose commands stand in another, too."""
EMBEDDED = [block for block in ONCE if ".venv-embed/" in block.text]
EXPLAINED = [block for block in ONCE if {command.program for command in commands(block)} == {"explain_novelty"}]


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory) -> Callable[[str], Path]:
    """A folder of novelsum for each document, in which its commands run: they write nothing into the repository."""
    return functools.cache(lambda document: make_folder(tmp_path_factory.mktemp(Path(document).stem)))


def make_folder(here: Path) -> Path:
    (here / ".venv").symlink_to(sys.prefix)
    (here / ".venv-embed").symlink_to(ROOT / ".venv-embed")
    for name in ("jobs", "novelsum", "tests", "docs"):
        (here / name).symlink_to(ROOT / name)
    for name in ("conf", "dist"):
        (here / name).mkdir()
    for path in (ROOT / "conf").glob("*.*"):
        (here / "conf" / path.name).write_text(stand_in(path.read_text(), here))
    session.write_zip(here / "dist" / f"novelsum-{novelsum.__version__}.zip")
    rows = ds.dataset(SAMPLE).to_table()
    for name, start, stop in (
        ("night", 0, 300),
        ("all", 300, 900),
        ("a", 0, 300),
        ("b", 300, 600),
        ("c", 600, 900),
        ("pool", 0, 900),
        ("embeddings", 0, 300),
    ):
        (here / "data" / name).mkdir(parents=True)
        pq.write_table(rows.slice(start, stop - start), here / "data" / name / "part-0.parquet")
    pq.write_table(rows.slice(300, 5).select(["id"]), here / "data" / "gone.parquet")
    vectors = rows.slice(0, 300).column("embedding").to_pylist()
    np.save(here / "data" / "vectors.npy", np.array(vectors, np.float32))
    (here / "data" / "ids.txt").write_text("".join(f"{id_}\n" for id_ in rows.column("id").to_pylist()[:300]))
    for name, content in (("texts", rows.column("text").to_pylist()), ("vectors", vectors)):
        (here / "data" / name).mkdir()
        for number in range(3):
            of_file = json.dumps(content[100 * number : 100 * (number + 1)], indent=4)
            (here / "data" / name / f"{number}.json").write_text(of_file)
    return here


def run_here(script: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a script as somebody would who has installed nothing but what `make setup` does."""
    own = {name: value for name, value in os.environ.items() if name not in ("PYSPARK_PYTHON", "PYTHONPATH")}
    own |= {"PATH": f"{folder}/.venv/bin:{own['PATH']}", **environment}
    return subprocess.run(
        ["bash", "-euc", script], cwd=folder, env=own, capture_output=True, text=True, timeout=540, check=False
    )


# --- every command is known, and its flags and files are there --------------------------------------------


@pytest.mark.parametrize("block", TYPED, ids=name_of)
def test_every_command_of_the_documents_is_one_that_a_test_runs(block):
    """A new command, or a new piece of text that is set apart, fails here until it is known how to run it."""
    for command in commands(block):
        runs = block in RUN or command.text in YARN or is_elsewhere(block.document, command)
        assert runs or command.program in IN_PASSING, command.text


def test_what_is_set_apart_but_not_typed_is_still_there():
    for start in SHOWN:
        assert any(block.text.startswith(start) for block in BLOCKS), start


def in_repository(name: str, command: Command) -> str:
    """The file of the repository that a command of a document names."""
    for place in ("local:///opt/novelsum/", "/opt/novelsum/"):
        name = name.removeprefix(place)
    if name == "/etc/novelsum/nightly.toml":
        name = "conf/nightly.toml"
    return command.shipped.get(name, name)


def properties(name: str) -> dict[str, str]:
    """The properties in a file of conf/."""
    lines = (ROOT / "conf" / name).read_text().splitlines()
    return dict(line.split(maxsplit=1) for line in lines if line.strip() and not line.startswith("#"))


def properties_of(command: Command) -> dict[str, str]:
    return properties(Path(command.options["--properties-file"]).name)


@pytest.mark.parametrize("block", TYPED, ids=name_of)
def test_every_command_has_flags_that_exist_and_files_that_are_there(block):
    """Flags by the job's own parser; files as they lie in the repository, or as `make package` makes them."""
    for command in commands(block):
        for option in set(SUBMIT[:4]) & set(command.options):
            for file in command.options[option].split(","):
                file = in_repository(file.partition("#")[0], command)
                assert file in PACKAGED or (ROOT / file).is_file(), command.text
        if command.program in PARSED:
            arguments = list(command.arguments)
            if "--config" in arguments:
                at = arguments.index("--config") + 1
                arguments[at] = str(ROOT / in_repository(arguments[at], command))
            assert PARSED[command.program]("", arguments).output
        if command.program == "make":
            assert re.search(rf"^{command.arguments[0]}:.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_make_package_makes_what_the_commands_name():
    """Both archives; the Python of the second has all that a driver imports."""
    made = subprocess.run(["make", "-n", "package"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "dist/novelsum-{__version__}.zip" in made
    assert "-o dist/environment.tar.gz" in made
    pins = re.search(r"grep -E '(\S+)' requirements.txt", made)
    assert pins
    packed = [
        line.split("==")[0] for line in (ROOT / "requirements.txt").read_text().splitlines() if re.match(pins[1], line)
    ]
    assert packed == ["numpy", "numba", "pyarrow", "matplotlib"]


@pytest.mark.parametrize(("block", "command"), SUBMITTED, ids=lambda value: getattr(value, "document", ""))
def test_every_submitted_command_leaves_spark_only_its_errors_to_log(block, command):
    """The properties name conf/log4j2.properties, at a place where the driver finds it."""
    options = properties_of(command)["spark.driver.extraJavaOptions"]
    named = re.fullmatch(r"-Dlog4j2.configurationFile=(\S+)", options)
    assert named
    assert in_repository(named[1], command) == "conf/log4j2.properties"


def test_a_driver_in_a_yarn_container_finds_its_settings_and_its_log_there():
    """Nothing of the submitter's folder is in a container but what is shipped, by its bare name."""
    assert YARN
    for command in YARN.values():
        at = command.arguments.index("--config") + 1
        assert command.arguments[at] in command.shipped
        assert properties_of(command)["spark.driver.extraJavaOptions"].split("=")[1] in command.shipped


@pytest.mark.parametrize("path", [*PAGES, TRANSLATED], ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_flag_file_job_and_target_that_a_page_mentions_exists(path):
    """In the text between backquotes, and behind links."""
    text = re.sub(r"^```\w*\n.*?^```\n", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    fields = [field for job in (*PARSED, *settings.EXPLAINING) for field in settings.fields_of(job)]
    flags = {settings.flag(field) for field in fields} | {
        "--config",
        "--help",
        "--no-report",
        "--remote",
        *SUBMIT,
    }
    targets = re.findall(r"^([a-z0-9-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for span in re.findall(r"`([^`]+)`", text):
        words = span.split()
        assert all(word in flags for word in words if re.fullmatch("--[a-z-]+", word)), span
        if words[0] == "make":
            assert set(words[1:]) <= {*targets, "lint", "types"}, span
        if re.fullmatch(r"(jobs|conf|docs|novelsum|tests)/[\w./-]*", words[0]):
            assert (ROOT / words[0]).exists(), span
        elif re.fullmatch(r"\w+\.py", words[0]):
            assert (ROOT / "jobs" / words[0]).exists(), span
        for name in re.findall(r"^(?:[A-Z]\w+\.)?(_?[a-z]\w+_\w+)$|^[A-Z]\w+\.(_?\w+)$", span):
            if path.name == "algorithm.md":
                code = "".join(file.read_text() for file in (ROOT / "novelsum").rglob("*.py"))
                assert re.search(rf"\b{''.join(name)}\b", code), span
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)]*))?\)", text):
        assert not target or (path.parent / target).exists(), target
        if anchor:
            page = path.parent / target if target else path
            headings = re.findall(r"^#+ (.*)$", page.read_text().lower(), re.MULTILINE)
            assert anchor in [heading.replace(" ", "-") for heading in headings], anchor


def sections(path: Path) -> list[int]:
    """The levels of a page's headings in their order, outside of what is set apart."""
    text = re.sub(r"^```\w*\n.*?^```\n", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    return [len(marks) for marks in re.findall(r"^(#+) ", text, re.MULTILINE)]


def test_the_chinese_readme_has_the_sections_and_the_commands_of_the_readme():
    """Blocks to type are equal but for comments; both show the same pictures and link the same pages."""
    readme, translated = ROOT / "README.md", TRANSLATED
    assert sections(translated) == sections(readme)
    typed = [[block.commands for block in of_page(path, path.read_text())] for path in (translated, readme)]
    assert typed[0] == typed[1]
    links = [set(re.findall(r"(?:\]\(|src=\")([^)\s#\"]+)", path.read_text())) for path in (translated, readme)]
    assert {"README.md", "https://arxiv.org/abs/2602.19000"} <= links[0]
    assert links[0] - {"README.md", "https://arxiv.org/abs/2602.19000"} == links[1] - {"README.zh-CN.md"}


def test_the_chinese_readme_leads_to_the_worked_example_in_chinese():
    assert "](docs/worked-example.md#中文)" in TRANSLATED.read_text()


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


# --- numbers and names in the text ------------------------------------------------------------------------

NUMBERED = [
    ("docs/operations.md", "two minutes after its last sign of life", lock.STALE_AFTER == 120),
    ("docs/operations.md", "every {:g} s elsewhere", progress.LOG_SECONDS),
    ("docs/jobs/README.md", "line is logged every {:g} s", progress.LOG_SECONDS),
    ("docs/jobs/curate.md", "at most {:,} candidates", projection.MAP_POOL),
    ("docs/jobs/curate.md", "there {} at most", survey._MOST_FIRST_PICKS),
    ("docs/jobs/curate.md", "about {:.1f} kB", (block_bytes(1, 384, 4) - 4 * 384) / 1000),
    ("docs/operations.md", "{:,}) bytes", block_bytes(1, 384, 4) - 4 * 384),
    ("docs/scaling.md", "N · (4 D + {:,}) bytes", block_bytes(1, 384, 4) - 4 * 384),
    ("docs/operations.md", "{:,} bytes a row", check.STATE_BYTES),
    ("docs/operations.md", "(B + M) · (4·D + {})", file_bytes(1, 0)),
    ("docs/operations.md", "at most {} MiB of vectors", BLOCK_BYTES >> 20),
    ("docs/algorithm.md", "{:,} bytes) on disk", block_bytes(1, 384, 4) - 4 * 384),
    ("docs/algorithm.md", "up to {} (`KEPT`)", check.KEPT),
    ("docs/algorithm.md", "up to {} that were drafted, or likely", contenders._MEASURED),
    ("docs/algorithm.md", "others {} cells of distances", sketch.CELLS),
    ("docs/algorithm.md", "the {} nearest picks", sketch.NEAREST),
    ("docs/algorithm.md", "That is {:.1f} kB", sketch.SKETCH.itemsize / 1000),
    ("docs/algorithm.md", "from parts of {} (`_SUMMED`)", check._SUMMED),
    ("docs/algorithm.md", "every {} picks", rounds._LOGGED_AT_ONCE),
    ("docs/algorithm.md", "drafts {} picks at a time", rounds._LOGGED_AT_ONCE),
    ("docs/algorithm.md", "at most {} MiB (`WHOLE_BYTES`)", rounds.WHOLE_BYTES >> 20),
    ("docs/algorithm.md", "N·(12·D + {:,}) bytes", contender_bytes(0, 4)),
    ("docs/operations.md", "N · (12·D + {:,}) bytes", contender_bytes(0, 4)),
    ("docs/algorithm.md", "12·D + {:,} each", contender_bytes(0, 4)),
    ("docs/algorithm.md", "(B + M)·(4·D + {})", pick_bytes(0, 4)),
    ("docs/algorithm.md", "{:.2f} GB", pick_bytes(1024, 4) / 1000),
    ("docs/algorithm.md", "{}·(B + M) each", list_bytes(1)),
    ("docs/algorithm.md", "at most {} MiB (`RANKED_BYTES`)", RANKED_BYTES >> 20),
    ("docs/algorithm.md", "| {} lists |", RANKED_BYTES // list_bytes(10**6)),
    ("docs/algorithm.md", "for {} cells of keys", ranking.CELLS),
    ("docs/operations.md", "and {} MiB of their ranked picks", RANKED_BYTES >> 20),
    ("docs/algorithm.md", "and {} picks: v moves", check.LONGEST_DRAFT),
    ("docs/algorithm.md", "up to n/{} and", rounds._DRAFT_SHARE),
    ("docs/algorithm.md", "within {:g} (`TIE`)", TIE),
    ("docs/density.md", "at most about {} MiB of vectors", near.GROUP_BYTES >> 20),
    ("docs/density.md", "draws {} to 2,000 rows", near.MEASURED[0]),
]


@pytest.mark.parametrize(("page", "words", "value"), NUMBERED, ids=lambda value: str(value)[:40])
def test_a_number_in_the_text_is_that_of_the_code(page, words, value):
    text = " ".join((ROOT / page).read_text().split())
    number = words.format(value).replace("e-0", "e-")
    assert value
    assert number in text


def of_task(rows: int, dimension: int, places: int, cores: int) -> int:
    """Memory of a task as docs/operations.md says it."""
    block = min(-(-rows // cores), (64 << 20) // (4 * dimension))
    return (256 << 20) + 24 * places + block * check.STATE_BYTES


def test_the_sizes_of_pools_are_what_the_formulas_and_the_engine_say():
    """Scratch by the function that the preflight uses; memory and the computed times by the formulas of the page."""
    text = (ROOT / "docs" / "operations.md").read_text()
    lines = re.findall(r"^\| ([\d,]+) × ([\d,]+) \| ([\d,]+) \| (\d+) \| (.*) \| (.*) \| (.*) \|$", text, re.MULTILINE)
    assert len(lines) == 4
    for *given, scratch, memory, time in lines:
        rows, dimension, budget, cores = (int(value.replace(",", "")) for value in given)
        exact = block_bytes(rows, dimension, 4) / 1e9
        assert scratch == f"{exact:.{0 if exact > 10 else 1}f} GB"
        assert memory == f"{of_task(rows, dimension, budget, cores) / 1e9:.1f} GB"
        if "computed" in time:
            products = 6 * 2 * rows * budget * dimension / (60e9 * cores)
            hours = [(products + budget / 50 * seconds) / 3600 for seconds in (1, 2)]
            low, high = re.match(r"([\d.]+) to ([\d.]+) hours", time).groups()
            assert [float(low), float(high)] == pytest.approx(hours, abs=0.06)


def test_metrics_have_the_numbers_of_a_manifest_under_the_names_of_the_page():
    manifest = {
        "job": "curate",
        "input": {"bad_rows": {"null": 2}, "fingerprint": "x"},
        "density": {"recall": 0.96, "method": "approximate"},
        "selected": {"rounds": 3, "rejected": 1, "first": "a"},
        "diversity": [{"novelsum_mean": 1.5, "formula": "paper"}],
        "settings": {"budget": 3},
        "seconds": {"total": 2.5},
    }
    found = json.loads(metrics(manifest))
    assert found == {
        "input.bad_rows.null": 2,
        "density.recall": 0.96,
        "selected.rounds": 3,
        "selected.rejected": 1,
        "diversity.1.novelsum_mean": 1.5,
        "seconds.total": 2.5,
    }
    text = (ROOT / "docs" / "operations.md").read_text()
    for name in found:
        assert name.removesuffix("null") in text


# --- programs that cannot be here -------------------------------------------------------------------------


def test_the_airflow_dag_gives_the_jobs_what_they_take(monkeypatch):
    """Airflow's two names are stand-ins that note what they get; arguments go to the jobs' own parsers."""
    tasks = []

    class Operator:
        def __init__(self, **given: object) -> None:
            tasks.append(given)

        def __rshift__(self, other: "Operator") -> "Operator":
            return other

    spark = "airflow.providers.apache.spark.operators.spark_submit"
    modules = {name: types.ModuleType(name) for name in (*_parents(spark), "airflow.decorators")}
    modules["airflow.decorators"].dag = lambda **_: lambda function: function
    modules[spark].SparkSubmitOperator = Operator
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    runpy.run_path(str(ROOT / "conf" / "airflow_dag.py"))
    assert tasks
    for task in tasks:
        job = Path(task["application"])
        arguments = [word.replace("{{ ds }}", "2026-11-23") for word in task["application_args"]]
        assert settings.parse(job.stem, "", arguments).output
        named = [task["application"], *(task[name] for name in ("properties_file", "py_files", "archives"))]
        shipped = [Path(name).name for name in task["files"].split(",")]
        of_log = properties(Path(task["properties_file"]).name)["spark.driver.extraJavaOptions"]
        assert of_log.split("=")[1] in shipped
        for file in ",".join([*named, task["files"]]).split(","):
            known = file.removeprefix("/opt/novelsum/").partition("#")[0]
            assert known in PACKAGED or (ROOT / known).exists(), file


def _parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts) + 1)]


def test_systemd_takes_the_service_and_its_timer():
    tool = subprocess.run(["sh", "-c", "command -v systemd-analyze"], capture_output=True, text=True, check=False)
    if tool.returncode:
        pytest.skip("systemd-analyze is not installed")
    units = [ROOT / "conf" / name for name in ("novelsum.service", "novelsum.timer")]
    done = subprocess.run([tool.stdout.strip(), "verify", *units], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.more
def test_every_property_of_the_examples_is_one_that_spark_knows(spark):
    """By Spark's own register of settings: a name with a slip of the pen would be ignored without a word."""
    java = spark._jvm
    for holder in ("internal.config.package$", "deploy.yarn.config.package$", "deploy.k8s.Config$"):
        java.java.lang.Class.forName(f"org.apache.spark.{holder}")
    register = java.org.apache.spark.internal.config.ConfigEntry
    assert register.findEntry("spark.no.such.setting") is None
    unlisted = ("spark.master", "spark.local.dir", "spark.executorEnv.", "spark.yarn.appMasterEnv.")
    unlisted += tuple(
        f"spark.kubernetes.{part}" for part in ("executor.volumes.", "driver.secretKeyRef.", "executor.secretKeyRef.")
    )
    for path in (ROOT / "conf").glob("*.conf"):
        for name in re.findall(r"^(spark\S+)", path.read_text(), re.MULTILINE):
            assert name.startswith(unlisted) or register.findEntry(name), (path.name, name)


# --- every command runs -----------------------------------------------------------------------------------


def test_the_python_example_of_the_readme_runs(capsys):
    (block,) = [block for block in BLOCKS if block.language == "python" and "SparkSession" not in block.text]
    exec(compile(block.text, block.document, "exec"), {})
    assert capsys.readouterr().out.startswith("NovelSum(sum=")


@pytest.mark.more
def test_the_lines_of_the_readme_for_a_dataframe_run(folder_of):
    (block,) = [block for block in BLOCKS if "SparkSession" in block.text]
    folder = folder_of("from a DataFrame")
    (folder / "lines.py").write_text(block.text)
    done = run_here(".venv/bin/python lines.py", folder)
    assert done.returncode == 0, done.stderr
    assert "|   1|bfcl:parallel:par" in done.stdout


@pytest.mark.parametrize("block", EXPLAINED, ids=name_of)
def test_the_worked_example_runs_as_it_is_typed(folder_of, block):
    folder = folder_of(block.document)
    done = run_here(stand_in("\n".join(block.commands), folder), folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in (ROOT / "docs" / "worked-example.md").read_text()


@pytest.mark.more
@pytest.mark.parametrize("block", [block for block in ONCE if block not in EXPLAINED + EMBEDDED], ids=name_of)
def test_the_commands_of_a_document_run_as_they_are_typed(folder_of, block):
    """Jobs in plain Python are handed one Java in turn; each spark-submit starts its own."""
    folder = folder_of(block.document)
    found, script = commands(block), "\n".join(block.commands)
    if before := BEFORE.get(block.document):
        (first,) = [other for other in RUN if other.document == before[0] and before[1] in other.text]
        script = "\n".join([*first.commands, script])
    for named, local in CLUSTERS.items():
        script = script.replace(f"--properties-file {named}", f"--properties-file {named} {local}")
    is_submitted = any(command.is_submitted for command in found)
    if block.document.endswith(".service"):
        script = f"export PYSPARK_PYTHON={folder}/.venv/bin/python\n{script}"
    done = run_here(stand_in(script, folder), folder, **({} if is_submitted else _gateway()))
    assert done.returncode == 0, done.stderr + done.stdout
    for command in found:
        if "--output" in command.arguments:
            output = command.arguments[command.arguments.index("--output") + 1]
            written = folder / stand_in(output, folder)
            assert list(written.glob("_MANIFEST.json")) or list(written.parent.glob("*/_MANIFEST.json")), output
            assert list(written.parent.glob("*/*metrics.json"))
    if is_submitted:
        assert len([line for line in done.stderr.splitlines() if "Picked up JAVA" not in line]) <= 3, done.stderr


@pytest.mark.embed
@pytest.mark.parametrize("block", EMBEDDED, ids=name_of)
def test_the_commands_that_embed_run_as_they_are_typed(folder_of, block):
    """From the lines of the README: what comes out are lines of what went in, as many as it says."""
    folder = folder_of(block.document)
    done = run_here(stand_in("\n".join(block.commands), folder), folder)
    assert done.returncode == 0, done.stderr + done.stdout
    (command,) = commands(block)
    assert (folder / command.arguments[command.arguments.index("--output") + 1] / "_MANIFEST.json").exists()
    if "--export" in command.arguments:
        lines = (folder / command.arguments[command.arguments.index("--export") + 1]).read_bytes().splitlines()
        known = (ROOT / "tests" / "data" / "chats.jsonl").read_bytes().splitlines()
        assert set(lines) <= set(known)
        assert f"has {len(lines)} of the {len(known)} lines" in " ".join((ROOT / "README.md").read_text().split())


def novelsums(printed: str) -> dict[str, float]:
    """NovelSum by strategy, of the numbers of picks and the means that --compare prints."""
    table = printed.partition("selections under the same rules\n")[2]
    found = re.findall(r"^([a-z-]+) +(\d+) +([\d.]+) ", table, re.MULTILINE)
    return {name: int(picks) * float(mean) for name, picks, mean in found}


@pytest.mark.more
def test_make_run_prints_what_the_readme_shows_and_compares_as_it_says(folder_of):
    """What the target runs, with --compare, from the sample that is shipped; the preflight says what the page does."""
    made = subprocess.run(["make", "-n", "run"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    (command,) = [line for line in made.splitlines() if "jobs/" in line]
    done = run_here(f"{command} --compare", folder_of("make run"), **_gateway())
    assert done.returncode == 0, done.stderr
    (block,) = [block for block in TYPED if block.shown]
    printed = "\n".join(" ".join(line.split()) for line in done.stdout.splitlines())
    for line in block.shown:
        assert " ".join(line.removesuffix("…").split()) in printed, line
    page = (ROOT / "docs" / "formula.md").read_text()
    told = " ".join(page.split("## Why NovelSelect need not")[1].split("farthest-first, as")[0].split())
    sums = novelsums(done.stdout)
    for name, words in (("k-means", "for k-means"), ("novelselect", "for NovelSelect"), ("random", "at random")):
        assert f"{sums[name]:.1f} {words}" in told
    assert told.endswith(f"{sums['farthest-first']:.1f}")
    symmetric = run_here(f"{command} --compare --formula symmetric", folder_of("symmetric"), **_gateway())
    assert symmetric.returncode == 0, symmetric.stderr
    assert f"counts the σ of x too: {novelsums(symmetric.stdout)['novelselect']:.1f}." in " ".join(page.split())
    needed = re.search(
        r"selection: 200 of 2771 candidates; (\d+) MiB of scratch .*, about (\d+) MiB of memory", done.stderr
    )
    assert needed
    compared = 2771 * (8 * 384 + 16) + 64 * 200 * 384  # docs/operations.md
    assert int(needed[1]) == round(compared / 2**20)
    in_pool = contender_bytes(384, 4) + list_bytes(200)  # docs/operations.md
    assert int(needed[2]) == round(2771 * in_pool / 2**20)


@pytest.mark.cluster
@pytest.mark.parametrize("text", YARN, ids=["all"] if len(YARN) == 1 else None)
def test_the_command_for_yarn_runs_in_what_yarn_makes_of_it(folder_of, tmp_path, text):
    """A container: the job, what --files ships, the archive's Python for the driver; executors apart, with theirs."""
    command, folder, archive = YARN[text], folder_of("yarn"), ROOT / "dist" / "environment.tar.gz"
    with tarfile.open(archive) as packed:
        packed.extractall(tmp_path / "environment", filter="fully_trusted")
    for name, file in command.shipped.items():
        (tmp_path / name).write_bytes((folder / file).read_bytes())
    (tmp_path / "job.py").write_bytes((ROOT / "jobs" / f"{command.program}.py").read_bytes())
    given = properties_of(command)
    cores, memory = given["spark.executor.cores"], int(given["spark.executor.memory"].removesuffix("g"))
    script = command.text.replace(
        "spark-submit ",
        f"spark-submit --master local-cluster[1,{cores},{memory * 1024}] "
        f"--deploy-mode client --conf spark.authenticate.secret={os.urandom(8).hex()} ",
        1,
    )
    script = script.replace("dist/environment.tar.gz", str(archive)).replace(f"jobs/{command.program}.py", "job.py")
    script = re.sub(r"(?<= )(conf|dist)/novelsum|(?<= )conf/yarn", lambda name: f"{folder}/{name[0]}", script)
    script = re.sub(r" --files \S+", "", script)
    spark = str(Path(pyspark.__file__).parent)
    python = given["spark.yarn.appMasterEnv.PYSPARK_PYTHON"]
    output = folder / stand_in(command.arguments[command.arguments.index("--output") + 1], folder)
    done = run_here(
        stand_in(f"rm -rf {output}; cd {tmp_path}; {script}", folder), folder, SPARK_HOME=spark, PYSPARK_PYTHON=python
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (output / "report.html").exists(), done.stdout
    assert pq.read_table(output / "selected").num_rows == 10
