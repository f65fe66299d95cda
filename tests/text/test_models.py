"""Real models embed texts: all-MiniLM-L6-v2, a causal model, and a server that runs one (make test-embed)."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from conftest import DATA, ROOT, SAMPLE, error_line, run_job
from embedding_server import serving
from pyspark import SparkContext

from novelsum.settings import EmbedSettings
from novelsum.text import embedders, plan
from novelsum.text.job import embed_text

pytestmark = pytest.mark.embed
MINILM = ROOT / ".venv-embed" / "all-MiniLM-L6-v2"
CHATS = DATA / "chats.jsonl"


@pytest.fixture
def embed(spark: SparkContext, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Run the job in this process, in the session of the tests."""

    def run(path: Path, output: Path, **settings: Any) -> Path:
        with monkeypatch.context() as patched:
            patched.setattr(SparkContext, "stop", lambda self: None)
            embed_text(EmbedSettings(input=str(path), output=str(output), **settings))
        return output

    return run


@pytest.fixture(scope="module")
def prompts(tmp_path_factory) -> tuple[Path, dict[str, np.ndarray]]:
    """Every sixth of the shipped prompts as text, and the embeddings that are shipped with them, by id."""
    rows = ds.dataset(SAMPLE).to_table()
    rows = rows.take(pa.array(np.arange(0, len(rows), 6)))
    path = tmp_path_factory.mktemp("prompts") / "in.parquet"
    pq.write_table(rows.select(["id", "text"]), path, row_group_size=100)
    return path, dict(zip(rows.column("id").to_pylist(), np.array(rows.column("embedding").to_pylist()), strict=True))


def embeddings_of(output: Path) -> dict[str, np.ndarray]:
    tables = [pq.read_table(file, columns=["id", "embedding"]) for file in sorted(output.glob("part-*.parquet"))]
    rows = pa.concat_tables(tables).to_pylist()
    return {row["id"]: np.array(row["embedding"], np.float32) for row in rows}


def manifest(output: Path) -> dict[str, Any]:
    return json.loads((output / "_MANIFEST.json").read_text())["embedded"]


def assert_near(found: dict[str, np.ndarray], expected: dict[str, np.ndarray], tolerance: float) -> None:
    assert found.keys() == expected.keys()
    assert max(np.abs(found[id_] - expected[id_]).max() for id_ in expected) < tolerance


# --- MiniLM -----------------------------------------------------------------------------------------------


def test_the_vectors_that_are_shipped_come_out_again(embed, prompts, tmp_path):
    """They are means of the last hidden layer of 128 tokens at most."""
    path, expected = prompts
    output = embed(path, tmp_path / "out", model=str(MINILM), backend="transformers", max_tokens=128)
    assert_near(embeddings_of(output), expected, 1e-4)
    said = manifest(output)
    assert (said["backend"], said["dimension"], said["max_tokens"], said["rows"]) == (
        *("transformers", 384, 128),
        len(expected),
    )
    assert 0 < said["truncated_share"] < 0.5


def test_a_model_of_sentence_transformers_is_pooled_and_normalised_as_it_says(embed, prompts, tmp_path):
    path, expected = prompts
    output = embed(path, tmp_path / "out", model=str(MINILM), max_tokens=128)
    assert manifest(output)["backend"] == "sentence-transformers"
    assert_near(embeddings_of(output), {id_: vector / np.linalg.norm(vector) for id_, vector in expected.items()}, 1e-5)


def test_a_model_behind_a_server_gives_what_it_gives_here(embed, tmp_path):
    local = embedders.embedder_of(embedders.model_of(str(MINILM), "auto", 256, None, 1))
    lines = [{"id": n, "text": text} for n, text in enumerate(["a", "<b>bold</b>", "你好", "word " * 90])]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with serving() as server:
        server.vectors_of = lambda texts: local.embed(texts).vectors
        output = embed(tmp_path / "in.jsonl", tmp_path / "out", model="test-model", server=server.url)
    expected = local.embed([line["text"] for line in lines]).vectors
    assert_near(embeddings_of(output), dict(enumerate(expected)), 1e-5)


def test_a_worker_loads_a_model_once(spark):
    model = embedders.model_of(str(MINILM), "transformers", 64, None, 1)

    def loaded(_: int) -> tuple[int, int]:
        embedder = embedders.embedder_of(model)
        embedder.embed(["text"])
        return os.getpid(), id(embedder)

    found = spark.parallelize(range(12), 12).map(loaded).collect()
    assert len(set(found)) == len({process for process, _ in found}) < 12


# --- a causal model ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def causal(tmp_path_factory) -> Path:
    """A tiny model with random weights, which reads words."""
    import tokenizers
    import torch
    import transformers

    folder = tmp_path_factory.mktemp("causal")
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel(unk_token="<unk>"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    texts = ds.dataset(SAMPLE).to_table(["text"]).column("text").to_pylist()
    words.train_from_iterator(texts, tokenizers.trainers.WordLevelTrainer(vocab_size=2000, special_tokens=["<unk>"]))
    transformers.PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>").save_pretrained(folder)
    torch.manual_seed(0)
    kind = transformers.LlamaConfig(
        vocab_size=2000, hidden_size=48, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4
    )
    transformers.LlamaForCausalLM(kind).save_pretrained(folder)
    return folder


def plain_means(folder: Path, texts: list[str], limit: int) -> list[np.ndarray]:
    """One text after the other, without padding."""
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    found = []
    for text in texts:
        ids = torch.tensor([tokenizer(text)["input_ids"][:limit]])
        with torch.inference_mode():
            found.append(model(input_ids=ids).last_hidden_state[0].mean(0).numpy())
    return found


@pytest.mark.parametrize("batch", [40, embedders.BATCH_TOKENS])
def test_a_causal_model_gives_the_mean_of_its_last_layer_whatever_shares_a_batch(
    embed, prompts, causal, tmp_path, monkeypatch, batch
):
    """Over the tokens of each text alone, cut after so many; the share that was cut is told."""
    monkeypatch.setattr(embedders, "BATCH_TOKENS", batch)
    path, _ = prompts
    rows = pq.read_table(path)
    output = embed(path, tmp_path / "out", model=str(causal), max_tokens=30)
    texts = rows.column("text").to_pylist()
    expected = dict(zip(rows.column("id").to_pylist(), plain_means(causal, texts, 30), strict=True))
    assert_near(embeddings_of(output), expected, 1e-5)
    said = manifest(output)
    tokens = [
        token for file in output.glob("part-*.parquet") for token in pq.read_table(file).column("tokens").to_pylist()
    ]
    assert said["backend"] == "transformers"
    assert said["truncated"] == sum(count > 30 for count in tokens) > 20
    assert said["tokens"] == sum(tokens)


# --- commands ---------------------------------------------------------------------------------------------


def test_one_command_takes_lines_to_lines_with_the_picks_of_the_embeddings(tmp_path):
    """Those that embed_text and curate select one after the other; each line byte for byte."""
    given = ("--model", MINILM, "--output", tmp_path / "one", "--budget", 20, "--export", tmp_path / "out.jsonl")
    done = run_job("curate", "--input", CHATS, *given)
    assert done.returncode == 0, done.stderr
    selected = pq.read_table(tmp_path / "one" / "selected").to_pylist()
    assert (tmp_path / "out.jsonl").read_text().splitlines() == [row["record"] for row in selected]
    assert {row["record"] for row in selected} <= set(CHATS.read_text().splitlines())
    done = run_job("embed_text", "--input", CHATS, "--model", MINILM, "--output", tmp_path / "embedded")
    assert done.returncode == 0, done.stderr
    done = run_job("curate", "--input", tmp_path / "embedded", "--output", tmp_path / "two", "--budget", 20)
    assert done.returncode == 0, done.stderr
    two = pq.read_table(tmp_path / "two" / "selected").column("id").to_pylist()
    assert two == [row["id"] for row in selected]


def test_a_model_that_cannot_be_loaded_is_told_in_one_sentence(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    given = ("--input", CHATS, "--model", tmp_path / "model", "--output", tmp_path / "out")
    done = run_job("embed_text", *given)
    assert done.returncode == 1, done.stderr
    assert f"--model {tmp_path / 'model'} cannot be loaded by an executor: " in error_line(done)
    assert "it needs the packages of novelsum[embed] and the model's files there" in error_line(done)


SMALL_PIECES = """
import sys
from novelsum.text import plan
plan.PIECE_BYTES = plan._SMALLEST_PIECE_BYTES = 20_000
from novelsum import console
sys.argv = ["embed_text.py", *sys.argv[1:]]
sys.exit(console.job("embed_text"))
"""


def test_a_run_killed_while_it_embeds_goes_on_with_what_is_not_embedded(embed, tmp_path, monkeypatch):
    """What was embedded stays as it is, and all is as in a run that nothing disturbs."""
    for name in ("PIECE_BYTES", "_SMALLEST_PIECE_BYTES"):
        monkeypatch.setattr(plan, name, 20_000)
    expected = embeddings_of(embed(CHATS, tmp_path / "whole", model=str(MINILM), content_ids=True))
    output = tmp_path / "out"
    command = [sys.executable, "-c", SMALL_PIECES, "--input", CHATS, "--model", MINILM, "--content-ids"]
    command = [str(word) for word in (*command, "--output", output, "--master", "local[1]")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, start_new_session=True, env=environment, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and len(list(output.glob("_work/result/part-*.parquet"))) < 3:
        time.sleep(0.01)
    assert process.poll() is None, process.stderr.read()
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    there = {file.name: file.read_bytes() for file in output.glob("_work/result/part-*.parquet")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {name: (output / name).read_bytes() for name in there} == there
    assert_near(embeddings_of(output), expected, 1e-6)
    assert 3 <= len(there) < len(list(output.glob("part-*.parquet")))
