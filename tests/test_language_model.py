"""The small language model of the evidence learns, is scored in bits per byte, and is the same when trained again."""

import importlib
from types import ModuleType

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from conftest import ROOT, SAMPLE

pytestmark = pytest.mark.embed


@pytest.fixture(scope="module")
def model() -> ModuleType:
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(str(ROOT / "tests" / "evidence"))
        return importlib.import_module("model")


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return ds.dataset(SAMPLE).to_table(columns=["text"])["text"].to_pylist()[:400]


@pytest.fixture(scope="module")
def tokens(model, texts, tmp_path_factory):
    return model.Tokens(tmp_path_factory.mktemp("tokens") / "some" / "bpe.json", texts)


def test_tokens_stand_for_all_bytes_of_a_text(tokens):
    hostile = ["naïve — 你好 \U0001f600", "a\n\tb  <end> c\x00\u2028", "", "<end>"]
    found = tokens.of(hostile)
    assert found.sizes.tolist() == [len(text.encode()) for text in hostile]
    assert tokens.of(["words and more words"], 2).sizes[0] < 20


def test_a_tokenizer_that_is_kept_is_read_and_not_trained_again(model, tokens, texts, tmp_path):
    first = model.Tokens(tmp_path / "bpe.json", texts[:50]).of(texts[:9])
    again = model.Tokens(tmp_path / "bpe.json", ["other texts"]).of(texts[:9])
    assert all(np.array_equal(a, b) for a, b in zip(first.tokens, again.tokens, strict=True))


def test_the_loss_of_a_text_does_not_depend_on_the_others_scored_with_it(model, tokens, texts):
    model.torch.manual_seed(1)
    untrained = model.Model()
    long = tokens.of([" ".join(texts[:20]), *texts[:12], "x"], model.SCORED)
    assert len(long.tokens[0]) == model.SCORED
    together = model.bits(untrained, long)
    alone = np.concatenate([model.bits(untrained, long.take([row])) for row in range(len(long.tokens))])
    assert together == pytest.approx(alone, rel=1e-5)
    counts = np.array([len(one) for one in long.tokens])
    assert together / counts == pytest.approx(np.full(len(counts), np.log2(model.VOCABULARY)), rel=0.1)


def test_a_token_is_predicted_by_those_before_it_alone(model):
    model.torch.manual_seed(1)
    untrained, some = model.Model(), np.random.default_rng(1).integers(1, 1_000, (1, 40))
    other = some.copy()
    other[0, 25:] = 7
    scores, changed = (untrained(model.torch.from_numpy(one)).detach().numpy() for one in (some, other))
    assert np.array_equal(scores[0, :25], changed[0, :25])
    assert not np.allclose(scores[0, 25], changed[0, 25])


def test_held_out_loss_falls_and_a_training_is_repeated_bit_by_bit(model, tokens, texts):
    whole = tokens.of(texts)
    subset, validation, test = (whole.take(range(*part)) for part in ((0, 300), (300, 330), (330, 400)))
    short = model.train(subset, validation, test, steps=5, seed=1)
    long = model.train(subset, validation, test, steps=80, seed=1)
    assert long.bits.sum() < 0.95 * short.bits.sum()
    assert long.looks[-1] < long.looks[0]
    again = model.train(subset, validation, test, steps=5, seed=1)
    assert np.array_equal(again.bits, short.bits)
    assert again.looks == short.looks
    assert not np.array_equal(model.train(subset, validation, test, steps=5, seed=2).bits, short.bits)


def test_the_best_look_is_the_one_that_is_scored(model, tokens, texts):
    """Three texts are soon known by heart: the last looks are worse, and the test has the loss of the best."""
    whole = tokens.of(texts)
    subset, validation = whole.take(range(3)), whole.take(range(300, 340))
    trained = model.train(subset, validation, validation, steps=150, seed=1)
    assert trained.looks[-1] > min(trained.looks)
    assert trained.bits.sum() / validation.sizes.sum() == pytest.approx(min(trained.looks))


def test_the_control_is_random_texts_with_as_many_bytes(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "evidence"))
    language, subsets = importlib.import_module("language"), importlib.import_module("subsets")
    ids = [f"t{number:02d}" for number in range(40)]
    table = pa.table({"text": ["é" * (5 + number) for number in range(40)]})
    pool = subsets.Pool(ids, np.eye(40, dtype=np.float32), table)
    sizes = dict(zip(ids, 10 + 2 * np.arange(40), strict=True))
    for start in (1, 2):
        drawn = [ids[row] for row in pool.lots(start)]
        found = language.Lots(pool).with_bytes_of(ids[20:30], start)
        assert found == drawn[: len(found)]
        off = [
            abs(sum(sizes[id] for id in drawn[:count]) - sum(sizes[id] for id in ids[20:30])) for count in range(1, 41)
        ]
        assert len(found) == 1 + int(np.argmin(off))
