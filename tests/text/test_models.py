"""Texts are embedded by real models: MiniLM, whose vectors are shipped, random causal ones, one behind a server."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import DATA, ROOT, SAMPLE, error_line, run_job
from embedding_server import serving
from pyspark import SparkContext

from novelsum.settings import EmbedSettings
from novelsum.text import embedders, plan
from novelsum.text.embedders import Model, embedder_of
from novelsum.text.job import embed_text

pytestmark = pytest.mark.embed
CHATS = DATA / "chats.jsonl"
MINILM = ROOT / ".venv-embed" / "all-MiniLM-L6-v2"
"""Where make setup-embed puts it."""


@pytest.fixture
def embed(spark: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., pa.Table]:
    """The embeddings by the job, in the session of the tests, whose workers keep their model; in order of the parts."""

    def run(path: Path, output: Path, **settings: Any) -> pa.Table:
        with monkeypatch.context() as patched:
            patched.setattr(SparkContext, "stop", lambda self: None)
            embed_text(EmbedSettings(input=str(path), output=str(output), **{"model": str(MINILM), **settings}))
        return table_of(output)

    return run


def table_of(output: Path) -> pa.Table:
    return pa.concat_tables(pq.read_table(file) for file in sorted(output.glob("part-*.parquet")))


def vectors_of(table: pa.Table, column: str = "embedding") -> np.ndarray:
    return np.array(table.column(column).combine_chunks().flatten()).reshape(len(table), -1)


def by_id(table: pa.Table) -> pa.Table:
    return table.sort_by("id")


def embedded(output: Path) -> dict[str, Any]:
    return json.loads((output / "_MANIFEST.json").read_text())["embedded"]


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """300 texts of the sample, a tenth of them several joined: lengths from 3 to 2,000 tokens of bytes."""
    found = pq.read_table(SAMPLE / "part-00001.parquet", columns=["text"]).column("text").to_pylist()
    return [f"{n} " + " ".join(found[n : n + (8 if n % 10 == 0 else 1)]) for n in range(300)]


@pytest.fixture(scope="module")
def lines(texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as JSON lines, their numbers as ids."""
    path = tmp_path_factory.mktemp("lines") / "in.jsonl"
    path.write_text("".join(json.dumps({"id": n, "text": text}) + "\n" for n, text in enumerate(texts)))
    return path


@pytest.fixture(scope="module")
def causal(texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random causal model of two layers with rotary places, and a tokenizer that has no token to pad with."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("causal") / "model"
    vocabulary = write_tokenizer(folder, texts)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.3,
        bos_token_id=None,
        eos_token_id=None,
    )
    torch.manual_seed(3)
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def write_tokenizer(folder: Path, texts: list[str]) -> int:
    """A tokenizer of pairs of bytes, learnt from the texts; return how many tokens it knows."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
    return int(tokenizer.get_vocab_size())


def one_by_one(folder: Path, texts: list[str], max_tokens: int) -> tuple[np.ndarray, list[int]]:
    """The mean of the last hidden layer of each text alone, without padding, and its tokens before it is cut."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    vectors, tokens = [], []
    for text in texts:
        ids = tokenizer(text)["input_ids"]
        tokens.append(len(ids))
        with torch.no_grad():
            states = model(torch.tensor([ids[:max_tokens]]), output_hidden_states=True).hidden_states[-1][0]
        vectors.append(states.double().mean(0).numpy())
    return np.array(vectors), tokens


# --- MiniLM -----------------------------------------------------------------------------------------------


def test_minilm_gives_the_shipped_sample_its_shipped_embeddings(embed, tmp_path):
    """By the command; these are means cut at 128 tokens, not normalised. By its own rules MiniLM normalises them."""
    output, pool = tmp_path / "means", SAMPLE / "part-00000.parquet"
    given = ("--model", MINILM, "--backend", "transformers", "--max-tokens", 128)
    done = run_job("embed_text", "--input", pool, "--output", output, *given)
    assert done.returncode == 0, done.stderr
    found = by_id(table_of(output))
    shipped = by_id(pq.read_table(pool))
    assert found.column("id").equals(shipped.column("id"))
    assert found.column("text").equals(shipped.column("text"))
    expected = vectors_of(shipped)
    assert np.abs(vectors_of(found) - expected).max() < 1e-4
    assert np.array_equal(vectors_of(found, "input_embedding"), expected)
    assert f"{embedded(output)['truncated_share']:.1%} of the texts were cut after 128 tokens" in done.stdout
    assert embedded(output)["truncated"] == sum(count > 128 for count in found.column("tokens").to_pylist()) > 0
    part = SAMPLE / "part-00002.parquet"
    own = embed(part, tmp_path / "own", max_tokens=128)
    assert embedded(tmp_path / "own")["backend"] == "sentence-transformers"
    units, of_part = vectors_of(by_id(own)), vectors_of(by_id(pq.read_table(part)))
    assert np.abs(np.linalg.norm(units, axis=1) - 1).max() < 1e-5
    assert np.abs(units - of_part / np.linalg.norm(of_part, axis=1, keepdims=True)).max() < 1e-4


def test_a_server_that_runs_the_model_gives_the_same(embed, tmp_path):
    from sentence_transformers import SentenceTransformer

    here = embed(CHATS, tmp_path / "here", max_tokens=512)
    assert embedded(tmp_path / "here")["truncated"] == 0
    model, alone = SentenceTransformer(str(MINILM), device="cpu"), threading.Lock()
    model.max_seq_length = 512

    def vectors(texts: list[str]) -> np.ndarray:
        with alone:
            return model.encode(texts, show_progress_bar=False)

    with serving() as served:
        served.vectors_of = vectors
        there = embed(CHATS, tmp_path / "there", model="test-model", server=served.url, max_tokens=512)
        assert 1 < served.requests < 30
    assert there.column("id").equals(here.column("id"))
    assert vectors_of(there).shape == (419, 384)
    assert np.abs(vectors_of(there) - vectors_of(here)).max() < 1e-5


def test_one_command_makes_a_training_file_of_chats(embed, tmp_path):
    """Each line is one of the input, byte for byte; the picks are those from embeddings made before."""
    target = tmp_path / "out.jsonl"
    text = ("--input", CHATS, "--model", MINILM)
    done = run_job("curate", *text, "--budget", 20, "--export", target, "--output", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    lines = CHATS.read_bytes().splitlines(keepends=True)
    chosen = target.read_bytes().splitlines(keepends=True)
    assert len(set(chosen)) == 20
    assert set(chosen) < set(lines)
    picks = pq.read_table(tmp_path / "out" / "selected").column("id").to_pylist()
    assert [json.loads(line)["id"] for line in chosen] == picks
    embed(CHATS, tmp_path / "embedded")
    given = ("--budget", 20, "--export", tmp_path / "other.jsonl", "--output", tmp_path / "other")
    other = run_job("curate", "--input", tmp_path / "embedded", *given)
    assert other.returncode == 0, other.stderr
    assert pq.read_table(tmp_path / "other" / "selected").column("id").to_pylist() == picks
    assert (tmp_path / "other.jsonl").read_bytes() == target.read_bytes()


def test_a_run_killed_while_it_embeds_goes_on_with_what_is_not_embedded(embed, tmp_path):
    """What was there stays as it is, and the result is that of a run that nothing disturbs, byte for byte."""
    rows = pq.read_table(SAMPLE, columns=["id", "text"]).to_pylist()
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    output = tmp_path / "out"
    given = ["--input", path, "--output", output, "--model", MINILM, "--max-tokens", 16, "--master", "local[2]"]
    command = [sys.executable, str(ROOT / "jobs" / "embed_text.py"), *map(str, given)]
    pipes = {"stderr": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, **pipes, start_new_session=True)
    while len(parts := sorted(output.glob("_work/**/part-*.parquet"))) < 3:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (output / "_MANIFEST.json").exists()
    parts = sorted(output.glob("_work/**/part-*.parquet"))
    before = {part.name: (part.stat().st_mtime_ns, part.read_bytes()) for part in parts}
    done = run_job("embed_text", *given)
    assert done.returncode == 0, done.stderr
    undisturbed = tmp_path / "undisturbed"
    embed(path, undisturbed, max_tokens=16)
    names = sorted(part.name for part in undisturbed.glob("part-*.parquet"))
    assert len(before) < len([name for name in names if "repeats" not in name])
    assert sorted(part.name for part in output.glob("part-*.parquet")) == names
    for name in names:
        assert (output / name).read_bytes() == (undisturbed / name).read_bytes(), name
    for name, (written, content) in before.items():
        assert ((output / name).stat().st_mtime_ns, (output / name).read_bytes()) == (written, content), name
    told, expected = embedded(output), embedded(undisturbed)
    assert {**told, "seconds": 0, "rows_per_second": 0} == {**expected, "seconds": 0, "rows_per_second": 0}


# --- causal models ----------------------------------------------------------------------------------------


def test_a_causal_model_gives_each_text_the_mean_that_it_has_alone(embed, causal, lines, texts, tmp_path, monkeypatch):
    """Whatever the batch; a text is cut after so many tokens, and the share of those that were is told."""
    expected, tokens = one_by_one(causal, texts, 100)
    whole = embed(lines, tmp_path / "whole", model=str(causal), max_tokens=100)
    monkeypatch.setattr(plan, "_SMALLEST_PIECE_BYTES", 3000)
    pieces = embed(lines, tmp_path / "pieces", model=str(causal), max_tokens=100)
    assert len(list((tmp_path / "whole").glob("part-*"))) * 3 < len(list((tmp_path / "pieces").glob("part-*")))
    for found in (whole, pieces):
        assert found.column("id").to_pylist() == list(range(300))
        assert found.column("tokens").to_pylist() == tokens
        assert np.abs(vectors_of(found) - expected).max() < 1e-5
    cut = sum(count > 100 for count in tokens)
    assert 20 < cut < 200
    said = embedded(tmp_path / "pieces")
    assert said["backend"] == "transformers"
    assert (said["max_tokens"], said["tokens"], said["truncated"]) == (100, sum(tokens), cut)
    assert said["truncated_share"] == pytest.approx(cut / 300, abs=1e-6)


def test_a_batch_holds_texts_of_like_length_and_never_too_many_tokens(causal, texts, monkeypatch):
    monkeypatch.setattr(embedders, "BATCH_TOKENS", 1000)
    embedder: Any = embedder_of(Model(str(causal), "transformers", 300))
    shapes, real = [], []

    def seen(module: Any, arguments: Any, given: dict[str, Any]) -> None:
        shapes.append(tuple(given["input_ids"].shape))
        real.append(int(given["attention_mask"].sum()))

    handle = embedder._model.register_forward_pre_hook(seen, with_kwargs=True)
    found = embedder.embed(texts)
    handle.remove()
    assert sum(rows for rows, _ in shapes) == len(texts)
    assert sum(real) == int(np.minimum(found.tokens, 300).sum())
    assert all(rows * longest <= 1000 for rows, longest in shapes)
    assert len(shapes) < 1.3 * sum(real) / 1000 + 1
    assert sum(real) > 0.9 * sum(rows * longest for rows, longest in shapes)


def test_a_worker_loads_the_model_once_for_all_its_pieces(spark, embed, causal, lines, tmp_path, monkeypatch):
    """Asked of the workers themselves, of which Spark keeps one for each core."""
    monkeypatch.setattr(plan, "_SMALLEST_PIECE_BYTES", 3000)
    fresh = tmp_path / "model"
    shutil.copytree(causal, fresh)

    def loads() -> dict[int, tuple[int, int]]:
        def asked(_: int) -> tuple[int, tuple[int, int]]:
            import os
            import time

            from novelsum.text.embedders import embedder_of

            time.sleep(0.2)
            said = embedder_of.cache_info()
            return os.getpid(), (said.misses, said.hits)

        return dict(spark.parallelize(range(6), 6).map(asked).collect())

    before = loads()
    embed(lines, tmp_path / "out", model=str(fresh), max_tokens=50)
    after = loads()
    pieces = len(list((tmp_path / "out").glob("part-*")))
    assert pieces > 8
    assert set(before) <= set(after)
    grown = [np.subtract(now, before.get(worker, (0, 0))) for worker, now in after.items()]
    misses, hits = np.sum(grown, axis=0)
    assert all(fresh_loads <= 1 for fresh_loads, _ in grown)
    assert misses + hits == pieces


def test_no_model_is_given_more_tokens_than_it_has_places_for(texts, tmp_path):
    """Models like RoBERTa have two fewer than their config says."""
    import torch
    from transformers import RobertaConfig, RobertaModel

    vocabulary = write_tokenizer(tmp_path, texts)
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    torch.manual_seed(0)
    RobertaModel(RobertaConfig(vocab_size=vocabulary, max_position_embeddings=66, **small)).save_pretrained(tmp_path)
    found = embedder_of(Model(str(tmp_path), "transformers", 256)).embed(texts)
    assert found.limit == 64
    assert found.truncated.sum() == (found.tokens > 64).sum() > 0
    assert np.isfinite(found.vectors).all()


# --- what cannot be ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["weights", "config", "tokenizer"])
def test_a_model_that_cannot_be_loaded_is_one_sentence(causal, tmp_path, damage):
    folder = tmp_path / "model"
    shutil.copytree(causal, folder)
    if damage == "weights":
        content = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(content[: len(content) // 2])
    elif damage == "config":
        (folder / "config.json").write_text("{")
    else:
        for file in folder.glob("token*"):
            file.unlink()
    done = run_job("embed_text", "--input", CHATS, "--output", tmp_path / "out", "--model", folder)
    assert done.returncode == 1, done.stderr
    told = error_line(done)
    assert told.startswith(f"error: --model {folder} cannot be loaded by an executor: "), told
    assert told.endswith("it needs the packages of novelsum[embed] and the model's files there as in the driver")
    assert not (tmp_path / "out" / "_MANIFEST.json").exists()
