"""The corpora of the evidence: real texts of several kinds with groups and embeddings, in out/evidence/corpora.

    python tests/evidence/corpora.py [NAME ...]

Each file has id (string), text (string, null where only the embedding is shipped), group (string), split ("pool" or
"held-out", four to one by a hash of the id) and embedding (384 float32 of all-MiniLM-L6-v2, made by the job embed_text
itself). Texts are cleaned of white space, 20 to 2,000 characters long, and occur once. What is there is not made again.
"""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import sources
from sources import Record

ROOT = Path(__file__).resolve().parents[2]
EVIDENCE = ROOT / "out" / "evidence"
CORPORA = EVIDENCE / "corpora"
BENCH40K = Path(os.environ.get("BENCH40K", ROOT.parent / "shared" / "data" / "bench40k"))
DIMENSION = 384
POOL_SHARE = 0.8
SHORTEST, LONGEST = 20, 2_000
SMALLEST_GROUP = 20
"""Records of smaller groups are left out: a probe cannot learn them."""


class Kind(NamedTuple):
    """What a corpus is made of: its source, how many records of it are drawn, and what it is in a few words.

    ``are_unit_vectors``: its embeddings have length 1, as the job makes them with this model; those shipped have not.
    """

    source: Callable[[Path], Iterable[Record]] | None
    most: int
    about: str
    are_unit_vectors: bool = True


KINDS = {
    "prompts": Kind(None, 10_000, "the prompts that this repository ships; by benchmark and category", False),
    "wordnet": Kind(sources.wordnet, 10_000, "glosses of WordNet 3.0; by lexicographer file, such as noun.animal"),
    "fortunes": Kind(sources.fortunes, 8_000, "sayings of fortune; by file"),
    "manual": Kind(sources.manual, 6_000, "paragraphs of Linux manual pages; by section"),
    "debian": Kind(sources.debian, 8_000, "descriptions of Debian packages; by section of the archive"),
    "docstrings": Kind(sources.docstrings, 6_000, "docstrings of ten Python packages; by package"),
    "bench40k": Kind(None, 20_000, "embeddings alone, of glosses and of package descriptions; by these two", False),
}


def share_of(salt: str, id: str) -> float:
    """A number in [0, 1) by a hash of an id."""
    return int.from_bytes(hashlib.sha256(f"{salt}:{id}".encode()).digest()[:8]) / 2**64


def split_of(id: str) -> str:
    """Whether an id is in the pool or held out."""
    return "pool" if share_of("split", id) < POOL_SHARE else "held-out"


def make(name: str) -> Path:
    """The file of a corpus, made unless it is there."""
    path = CORPORA / f"{name}.parquet"
    if not path.exists():
        CORPORA.mkdir(parents=True, exist_ok=True)
        rows = {"prompts": _prompts, "bench40k": _bench40k}.get(name, lambda: _embedded(name))()
        _write(path, rows)
        print(f"{name}: {_told(path)}", flush=True)
    return path


def read(name: str, split: str | None = None) -> pa.Table:
    """The rows of a corpus in the order of their ids, all or those of one split."""
    table = pq.read_table(CORPORA / f"{name}.parquet")
    table = table if split is None else table.filter(pc.equal(table["split"], split))
    return table.sort_by("id")


def embeddings_of(table: pa.Table) -> np.ndarray:
    """(n, 384) float32."""
    return table["embedding"].combine_chunks().flatten().to_numpy().reshape(-1, DIMENSION)


# --- sources ----------------------------------------------------------------------------------------------


def _cleaned(records: Iterable[Record], most: int) -> list[Record]:
    """Texts without superfluous white space, long enough, each once, in groups that are large enough; then a draw."""
    seen: dict[str, Record] = {}
    for record in records:
        text = " ".join(record.text.split())
        if SHORTEST <= len(text) <= LONGEST:
            seen.setdefault(text, record._replace(text=text))
    drawn = sorted(seen.values(), key=lambda record: share_of("draw", record.id))[:most]
    sizes: dict[str, int] = {}
    for record in drawn:
        sizes[record.group] = sizes.get(record.group, 0) + 1
    return sorted(record for record in drawn if sizes[record.group] >= SMALLEST_GROUP)


def _embedded(name: str) -> Iterator[tuple[str, str | None, str, np.ndarray]]:
    """Read a source, clean it and embed it by the job."""
    kind = KINDS[name]
    assert kind.source is not None
    records = _cleaned(kind.source(EVIDENCE), kind.most)
    if len({record.id for record in records}) < len(records):
        raise SystemExit(f"error: ids of {name} are not unique")
    texts, output = EVIDENCE / "texts" / f"{name}.jsonl", EVIDENCE / "embedded" / name
    texts.parent.mkdir(exist_ok=True)
    texts.write_text("".join(json.dumps({"id": r.id, "text": r.text, "group": r.group}) + "\n" for r in records))
    python = ROOT / ".venv-embed" / "bin" / "python"
    if not python.exists():
        raise SystemExit("error: there is no .venv-embed to embed texts; make it with 'make setup-embed'")
    if not (output / "_MANIFEST.json").exists():
        model = ROOT / ".venv-embed" / "all-MiniLM-L6-v2"
        given = ("--input", texts, "--output", output, "--model", model, "--columns", "group")
        master = ("--master", os.environ.get("EVIDENCE_MASTER", "local[2]"))
        command = [str(part) for part in (python, ROOT / "jobs" / "embed_text.py", *given, *master)]
        if subprocess.run(command, env={**os.environ, "PYSPARK_PYTHON": str(python)}, check=False).returncode:
            raise SystemExit(f"error: the texts of {name} were not embedded; what is wrong is said above")
    vectors = _vectors_in(output)
    for record in records:
        yield record.id, record.text, record.group, vectors[record.id]


def _vectors_in(folder: Path) -> dict[str, np.ndarray]:
    table = ds.dataset(sorted(folder.glob("*.parquet"))).to_table(["id", "embedding"])
    vectors = np.array(table["embedding"].combine_chunks().flatten(), dtype=np.float32).reshape(-1, DIMENSION)
    return dict(zip(table["id"].to_pylist(), vectors, strict=True))


def _prompts() -> Iterator[tuple[str, str | None, str, np.ndarray]]:
    """The shipped prompts, one of each set of equal embeddings; those of sample-rest have no texts."""
    seen: set[bytes] = set()
    rows = []
    for folder in ("sample", "sample-rest"):
        table = ds.dataset(ROOT / "tests" / "data" / folder).to_table()
        vectors = np.array(table["embedding"].combine_chunks().flatten(), dtype=np.float32).reshape(-1, DIMENSION)
        texts = table["text"].to_pylist() if "text" in table.column_names else [None] * len(vectors)
        for id, text, vector in zip(table["id"].to_pylist(), texts, vectors, strict=True):
            origin, category = id.split(":")[:2]
            rows.append((id, text, category if origin == "bfcl" else origin, vector))
    for row in sorted(rows, key=lambda row: row[0]):
        if row[3].tobytes() not in seen:
            seen.add(row[3].tobytes())
            yield row


def _bench40k() -> Iterator[tuple[str, str | None, str, np.ndarray]]:
    """Embeddings that lie where BENCH40K says, as for make bench."""
    if not BENCH40K.is_dir():
        raise SystemExit(f"error: {BENCH40K} is not there; name the folder of bench40k with BENCH40K, or leave it out")
    table = ds.dataset(BENCH40K, format="parquet").to_table(["id", "group", "embedding"])
    vectors = np.array(table["embedding"].combine_chunks().flatten(), dtype=np.float32).reshape(-1, DIMENSION)
    ids, groups = table["id"].to_pylist(), table["group"].to_pylist()
    drawn = sorted(range(len(ids)), key=lambda at: share_of("draw", ids[at]))[: KINDS["bench40k"].most]
    for at in sorted(drawn, key=lambda at: ids[at]):
        yield ids[at], None, groups[at], vectors[at]


def _write(path: Path, rows: Iterable[tuple[str, str | None, str, np.ndarray]]) -> None:
    """Write a corpus whole or not at all."""
    ids, texts, groups, vectors = zip(*rows, strict=True)
    flat = pa.array(np.concatenate(vectors), pa.float32())
    columns = {
        "id": pa.array(ids, pa.string()),
        "text": pa.array(texts, pa.string()),
        "group": pa.array(groups, pa.string()),
        "split": pa.array([split_of(id) for id in ids], pa.string()),
        "embedding": pa.FixedSizeListArray.from_arrays(flat, DIMENSION),
    }
    pq.write_table(pa.table(columns), path.with_suffix(".part"))
    path.with_suffix(".part").rename(path)


def _told(path: Path) -> str:
    table = pq.read_table(path, columns=["split", "group", "text"])
    lengths = pc.mean(pc.utf8_length(table["text"])).as_py()
    pool = pc.sum(pc.equal(table["split"], "pool")).as_py()
    groups = len(pc.unique(table["group"]))
    return f"{table.num_rows} rows, {pool} in the pool, {groups} groups, {lengths or 0:.0f} characters a text"


def main(names: list[str]) -> None:
    """Make the corpora of these names, or all; bench40k only where it lies."""
    unknown = [name for name in names if name not in KINDS]
    if unknown:
        raise SystemExit(f"error: no corpus is called {unknown[0]}; there are {', '.join(KINDS)}")
    for name in names or KINDS:
        if name == "bench40k" and not names and not BENCH40K.is_dir():
            print(f"bench40k: left out, as there is no {BENCH40K}; BENCH40K names its folder", flush=True)
        else:
            make(name)


if __name__ == "__main__":
    main(sys.argv[1:])
