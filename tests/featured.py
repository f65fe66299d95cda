"""A pool with everything a report tells of: chats, quality, costs, groups, near-copies and samples selected before."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from conftest import SAMPLE
from hostile import HOSTILE

ROWS, COPIES, BEFORE = 700, 24, 100
ARGUMENTS = [
    *("--text-column", "chat", "--group-column", "group", "--quality-column", "quality", "--cost-column", "tokens"),
    *("--quota", "wordnet=20:40", "live_multiple=:6", "*=:30%", "--near-duplicates", "0.001"),
    *("--cost-budget", "40k", "--density-method", "approximate"),
]
SYSTEM = "You are a helpful assistant. " * 12


def turns(place: int, text: str) -> list[dict[str, str]]:
    """A chat about a text: of one turn, or with an answer, some behind a system turn that they share."""
    asked = [{"role": "user", "content": text}]
    answered = [{"role": "assistant", "content": f"Here is what I know of number {place}."}] if place % 2 else []
    return [*([{"role": "system", "content": SYSTEM}] if place % 3 == 0 else []), *asked, *answered]


def write_featured(folder: Path) -> tuple[Path, Path]:
    """The input, chats as lists of structs in one file and as JSON in another column, and samples selected before."""
    rng = np.random.default_rng(19)
    table = ds.dataset(SAMPLE).to_table().slice(0, ROWS).combine_chunks()
    ids, texts, groups = (table.column(name).to_pylist() for name in ("id", "text", "group"))
    vectors = np.array(table.column("embedding").chunk(0).flatten()).reshape(ROWS, -1)
    near = vectors[:COPIES] + 1e-5 * rng.normal(size=(COPIES, vectors.shape[1])).astype(np.float32)
    ids += [f"copy of {id_}" for id_ in ids[:COPIES]]
    texts = [HOSTILE + text if place % 5 == 0 else text for place, text in enumerate(texts + texts[:COPIES])]
    groups += groups[:COPIES]
    vectors = np.concatenate([vectors, near])
    chats = [turns(place, text) for place, text in enumerate(texts)]
    flat = pa.array(vectors.reshape(-1))
    columns = {
        "id": ids,
        "embedding": pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1]).cast(pa.list_(flat.type)),
        "chat": chats,
        "as_json": [json.dumps({"messages": chat}) for chat in chats],
        "group": groups,
        "quality": np.round(rng.uniform(0.2, 1, len(ids)), 3),
        "tokens": rng.integers(50, 900, len(ids)).astype(np.float64),
    }
    source, before = folder / "in.parquet", folder / "before.parquet"
    full = pa.table(columns)
    pq.write_table(full.slice(0, len(ids)), source)
    pq.write_table(full.slice(200, BEFORE).select(["id"]), before)
    return source, before
