"""What --export writes is read by Hugging Face datasets, as the records that were put in."""

import json

import numpy as np
import pyarrow as pa
import pytest
from conftest import write_parquet

pytestmark = pytest.mark.embed
KINDS = {"jsonl": "json", "jsonl.gz": "json", "json": "json", "parquet": "parquet"}


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    """``datasets.load_dataset`` without a network, with a cache of its own."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("HF_HUB_OFFLINE", "1")
        patched.setenv("HF_HOME", str(tmp_path_factory.mktemp("cache")))
        datasets = pytest.importorskip("datasets")
        yield datasets.load_dataset


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("whole", [True, False], ids=["records", "columns"])
def test_datasets_reads_the_chosen_records(run_here, load, tmp_path, kind, whole):
    rng = np.random.default_rng(7)
    records = [
        {
            "id": f'd{i:03d} "\n',
            "messages": [
                {"role": "user", "content": f"\u2028 <b>q{i}</b> \\u2028 \r\n"},
                {"role": "assistant", "content": "a" * i},
            ],
            "score": i / 8,
        }
        for i in range(60)
    ]
    if whole:
        columns = {
            "record": pa.array([json.dumps(record, ensure_ascii=i % 2 == 0) for i, record in enumerate(records)])
        }
    else:
        columns = {name: pa.array([record[name] for record in records]) for name in ("messages", "score")}
    ids, vectors = [record["id"] for record in records], rng.normal(size=(60, 5)).astype(np.float32)
    path = write_parquet(tmp_path / "in.parquet", ids, vectors, **columns)
    target = tmp_path / f"train.{kind}"
    given = {"input": path, "budget": 60, "neighbors": 3, "report": False, "export_order": "input"}
    run_here("curate", output=str(tmp_path / "out"), export=str(target), **given)
    assert list(load(KINDS[kind], data_files=str(target), split="train", cache_dir=str(tmp_path / "cache"))) == records
