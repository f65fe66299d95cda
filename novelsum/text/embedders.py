"""Models that embed texts, behind one small interface: sentence-transformers, transformers, and a server.

A worker process of Python loads a model once and keeps it (:func:`embedder_of`). What is needed is looked for in the
driver, before Spark starts (:func:`model_of`).
"""

import functools
import importlib.util
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from novelsum.errors import RunError, UsageError, first_line
from novelsum.text.server import Server

Backend = Literal["sentence-transformers", "transformers", "server"]

BATCH_TOKENS = 8192
"""A batch has about so many tokens, padding included: 32 texts of 256."""
_BATCH_TEXTS = 256
_PACKAGES: dict[Backend, tuple[str, ...]] = {
    "sentence-transformers": ("torch", "transformers", "sentence_transformers"),
    "transformers": ("torch", "transformers"),
    "server": (),
}


@dataclass(frozen=True)
class Model:
    """A model by its name, and how it is run. ``flights``: requests to a server at the same time, of all tasks."""

    name: str
    backend: Backend
    max_tokens: int
    server: str | None = None
    flights: int = 1


@dataclass(frozen=True)
class Embedded:
    """Embeddings (n, D) of texts, how many tokens each has (n,) before it is cut, and which were cut (n,).

    What a model makes is float32. ``limit``: the tokens after which they are cut. Where the tokens of a text are not
    known, they are -1.
    """

    vectors: NDArray[np.floating[Any]]
    tokens: NDArray[np.int64]
    truncated: NDArray[np.bool_]
    limit: int


class Embedder(Protocol):
    """What embeds texts."""

    def embed(self, texts: Sequence[str]) -> Embedded:
        """The embeddings of some texts, in their order. Raises RunError where that fails."""


def model_of(name: str, backend: str, max_tokens: int, server: str | None, flights: int) -> Model:
    """The model that settings name; raise UsageError where it cannot be, or a package that it needs is not there."""
    if server is not None or backend == "server":
        if server is None:
            raise UsageError("--backend server needs --server, the URL of a server such as http://localhost:8000/v1")
        if backend not in ("auto", "server"):
            raise UsageError(f"--backend {backend} runs the model here, but --server is given; leave one of them out")
        return Model(name, "server", max_tokens, server, flights)
    folder = Path(name)
    if (name.startswith((".", "/", "~")) or name.count("/") > 1) and not folder.is_dir():
        raise UsageError(f"--model {name} is no folder; name a model of Hugging Face or the folder that one lies in")
    if folder.is_dir() and not (folder / "config.json").exists() and not (folder / "modules.json").exists():
        raise UsageError(
            f"--model {name} is a folder without config.json and modules.json, so no model; name the folder of one"
        )
    chosen = _backend(name, folder) if backend == "auto" else backend
    found: Backend = "sentence-transformers" if chosen == "sentence-transformers" else "transformers"
    _require(found)
    return Model(str(folder.absolute()) if folder.is_dir() else name, found, max_tokens)


def _backend(name: str, folder: Path) -> Backend:
    """sentence-transformers where the model says how it makes one vector of a text, else the mean of its tokens."""
    if folder.is_dir():
        return "sentence-transformers" if (folder / "modules.json").exists() else "transformers"
    _require("transformers")
    hub: Any = importlib.import_module("huggingface_hub")
    try:
        hub.hf_hub_download(name, "modules.json")
    except hub.errors.LocalEntryNotFoundError as error:
        raise UsageError(
            f"--model {name} is no folder, and Hugging Face cannot be asked for it ({first_line(error)}); download the "
            "model and name its folder"
        ) from None
    except hub.errors.EntryNotFoundError:
        return "transformers"
    except (hub.errors.HfHubHTTPError, hub.errors.HFValidationError, OSError) as error:
        raise UsageError(
            f"--model {name} is no folder, and Hugging Face has none that can be read ({first_line(error)}); name "
            "another"
        ) from None
    return "sentence-transformers"


def _require(backend: Backend) -> None:
    missing = [name for name in _PACKAGES[backend] if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(
            f"--model needs {' and '.join(missing)}, which this Python does not have; install it with pip install "
            "'novelsum[embed]', or embed by a server with --server"
        )


@functools.lru_cache(maxsize=1)
def embedder_of(model: Model, flights: int = 1) -> Embedder:
    """The embedder of a model, loaded once by a process. ``flights``: requests of this task at the same time."""
    if model.backend == "server":
        assert model.server is not None
        return _OfServer(Server(model.server, model.name), model.max_tokens, flights)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        torch: Any = importlib.import_module("torch")
        transformers: Any = importlib.import_module("transformers")
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
        kind = _SentenceTransformers if model.backend == "sentence-transformers" else _Transformers
        return kind(model)
    except Exception as error:  # whatever these packages raise of files that are none of theirs
        raise RunError(
            f"--model {model.name} cannot be loaded by an executor: {first_line(error)}; it needs the packages of "
            "novelsum[embed] and the model's files there as in the driver"
        ) from None


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """The places of texts of some lengths in tokens, in batches of like length, the longest first."""
    batch: list[int] = []
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        longest = lengths[batch[0]] if batch else 0
        if batch and (longest * (len(batch) + 1) > BATCH_TOKENS or len(batch) == _BATCH_TEXTS):
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


def _limit(max_tokens: int, model: Any) -> int:
    """The tokens after which texts are cut: as asked, but no more than a model of transformers has places for.

    Models like RoBERTa number places from the one behind that of padding, and have fewer than their config says.
    """
    places = getattr(getattr(model, "config", None), "max_position_embeddings", None)
    if places is None:
        return max_tokens
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            places -= module.padding_idx + 1
    return min(max_tokens, int(places))


class _SentenceTransformers:
    """A model of sentence-transformers, with its own pooling, and normalised if it says so."""

    def __init__(self, model: Model) -> None:
        package: Any = importlib.import_module("sentence_transformers")
        self._model = package.SentenceTransformer(model.name)
        inner = getattr(self._model[0], "auto_model", None) or getattr(self._model[0], "model", None)
        self._limit = _limit(model.max_tokens, inner)
        self._model.max_seq_length = self._limit

    def embed(self, texts: Sequence[str]) -> Embedded:
        """The embeddings as the model makes them."""
        tokens = [len(ids) for ids in self._model.tokenizer(list(texts), verbose=False)["input_ids"]]
        vectors: NDArray[np.float32] | None = None
        for batch in _batches([min(length, self._limit) for length in tokens]):
            found = self._model.encode(
                [texts[place] for place in batch], batch_size=len(batch), show_progress_bar=False
            )
            vectors = _put(vectors, len(texts), batch, found)
        return _embedded(vectors, tokens, self._limit)


class _Transformers:
    """Any model of transformers, causal ones too: the mean of the last hidden layer over the tokens of a text."""

    def __init__(self, model: Model) -> None:
        self._torch: Any = importlib.import_module("torch")
        transformers: Any = importlib.import_module("transformers")
        self._device = "cuda" if self._torch.cuda.is_available() else "cpu"
        self._tokenizer = transformers.AutoTokenizer.from_pretrained(model.name)
        kind = "auto" if self._device == "cuda" else self._torch.float32
        self._model = transformers.AutoModel.from_pretrained(model.name, dtype=kind).to(self._device).eval()
        self._limit = _limit(model.max_tokens, self._model)

    def embed(self, texts: Sequence[str]) -> Embedded:
        """The means. Texts are padded at their ends, behind all tokens that look at them in a causal model."""
        found = [list(ids) for ids in self._tokenizer(list(texts), verbose=False)["input_ids"]]
        tokens = [len(ids) for ids in found]
        long = [place for place, length in enumerate(tokens) if length > self._limit]
        if long:
            cut = self._tokenizer([texts[place] for place in long], truncation=True, max_length=self._limit)
            for place, ids in zip(long, cut["input_ids"], strict=True):
                found[place] = list(ids)
        vectors: NDArray[np.float32] | None = None
        for batch in _batches([len(ids) for ids in found]):
            vectors = _put(vectors, len(texts), batch, self._means([found[place] for place in batch]))
        return _embedded(vectors, tokens, self._limit)

    def _means(self, found: list[list[int]]) -> NDArray[np.float32]:
        torch, longest = self._torch, max(1, *map(len, found))
        ids = torch.zeros((len(found), longest), dtype=torch.long)
        mask = torch.zeros((len(found), longest), dtype=torch.long)
        for place, of_text in enumerate(found):
            ids[place, : len(of_text)] = torch.tensor(of_text, dtype=torch.long)
            mask[place, : len(of_text)] = 1
        with torch.inference_mode():
            states = self._model(input_ids=ids.to(self._device), attention_mask=mask.to(self._device)).last_hidden_state
            weights = mask.to(self._device)[..., None].float()
            means = (states.float() * weights).sum(1) / weights.sum(1).clamp(min=1)
        return np.asarray(means.cpu().numpy(), dtype=np.float32)


class _OfServer:
    """A model that a server runs. It knows no tokens: a text is cut after four characters for each, about what they
    have in English, and the server may cut it again.
    """

    def __init__(self, server: Server, max_tokens: int, flights: int) -> None:
        self._server, self._limit, self._flights = server, max_tokens, flights

    def embed(self, texts: Sequence[str]) -> Embedded:
        """The embeddings as the server gives them."""
        most = CHARACTERS_OF_A_TOKEN * self._limit
        order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        found = self._server.embed([texts[place][:most] for place in order], self._flights)
        vectors = _put(None, len(texts), order, found) if len(texts) else found
        truncated = np.array([len(text) > most for text in texts], dtype=bool)
        return Embedded(vectors, np.full(len(texts), -1, dtype=np.int64), truncated, self._limit)


CHARACTERS_OF_A_TOKEN = 4


def _put(vectors: NDArray[np.float32] | None, rows: int, places: list[int], found: Any) -> NDArray[np.float32]:
    """The vectors with some more of them at their places."""
    found = np.asarray(found, dtype=np.float32)
    if vectors is None:
        vectors = np.zeros((rows, found.shape[1]), dtype=np.float32)
    vectors[places] = found
    return vectors


def _embedded(vectors: NDArray[np.float32] | None, tokens: list[int], limit: int) -> Embedded:
    counted = np.array(tokens, dtype=np.int64)
    return Embedded(np.zeros((0, 0), dtype=np.float32) if vectors is None else vectors, counted, counted > limit, limit)
