"""A small language model from scratch, on one core in seconds: what a subset of texts teaches, by held-out loss.

Texts become tokens of a byte-level BPE that is trained on the whole pool, the same for all subsets of a corpus. Losses
are bits per byte of the held-out texts, whatever the tokens. Nothing here knows how a subset was chosen.
"""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizers.implementations import ByteLevelBPETokenizer
from torch import Tensor, nn
from torch.nn import functional

VOCABULARY, CONTEXT, WIDTH, LAYERS, HEADS = 1024, 128, 64, 1, 4
BATCH, RATE, WARMUP, DECAY = 4, 4e-3, 0.1, 0.1
END = VOCABULARY - 1
"""The token before the first of a text, so that it ends the one before; it is not one that a text can have."""
SCORED = 2 * CONTEXT
"""A held-out text is scored as far as this token, so that a few long ones are not most of the loss."""
LOOKS = 5
"""How often in a training the validation texts are looked at; the best look counts."""


@dataclass(frozen=True)
class Texts:
    """``tokens``: those of each text, int64; ``sizes``: the bytes that these stand for, int64 (texts,)."""

    tokens: list[np.ndarray]
    sizes: np.ndarray

    def take(self, rows: Sequence[int] | np.ndarray) -> "Texts":
        """These texts, in this order."""
        return Texts([self.tokens[row] for row in rows], self.sizes[np.asarray(rows, int)])

    def stream(self, generator: np.random.Generator) -> np.ndarray:
        """All tokens one after the other, texts in a random order, END before each; int64."""
        order = generator.permutation(len(self.tokens))
        return np.concatenate([part for row in order for part in ([END], self.tokens[row])])


class Tokens:
    """A byte-level BPE, read from ``path``, or trained on ``pool`` and kept there."""

    def __init__(self, path: Path, pool: Sequence[str]) -> None:
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        if not path.exists():
            trained = ByteLevelBPETokenizer()
            trained.train_from_iterator(pool, VOCABULARY - 1, 2, show_progress=False)
            path.parent.mkdir(parents=True, exist_ok=True)
            staged = path.with_suffix(f".{os.getpid()}")
            trained.save(str(staged))
            staged.rename(path)
        self._tokenizer = Tokenizer.from_file(str(path))
        words = [self._tokenizer.id_to_token(token) for token in range(self._tokenizer.get_vocab_size())]
        self._lengths = np.array([len(word) for word in words])  # a word is written with one character a byte

    def of(self, texts: Sequence[str], most: int | None = None) -> Texts:
        """The texts in tokens, each as far as its first ``most``."""
        encoded = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        tokens = [np.array(one.ids[:most], int) for one in encoded]
        return Texts(tokens, np.array([self._lengths[one].sum() for one in tokens], int))


class Layer(nn.Module):
    """Causal attention, then a perceptron, each on the normed input and added to it; (B, T, WIDTH) to the same."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.between = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attend, self.project = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.widen, self.narrow = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        of_batch, length, _ = x.shape
        heads = self.attend(self.before(x)).view(of_batch, length, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(*heads, is_causal=True)
        x = x + self.project(seen.transpose(1, 2).reshape(x.shape))
        return x + self.narrow(functional.gelu(self.widen(self.between(x)), approximate="tanh"))


class Model(nn.Module):
    """A decoder of LAYERS layers; the same matrix takes tokens in and gives their scores.

    Each token comes in with a product of the one before it. Two layers without that, and two with it, are farther from
    what they can learn in as many seconds, and differ more from seed to seed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.token, self.place = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.before = nn.Linear(WIDTH, WIDTH, bias=False)
        self.layers = nn.Sequential(*(Layer() for _ in range(LAYERS)))
        self.last = nn.LayerNorm(WIDTH)
        for name, weights in self.named_parameters():
            if weights.dim() > 1:
                deep = name.endswith(("project.weight", "narrow.weight"))
                nn.init.normal_(weights, std=0.05 / math.sqrt(2 * LAYERS) if deep else 0.05)

    def forward(self, tokens: Tensor) -> Tensor:
        """int64 (B, T) to the score of each token that may come next, (B, T, VOCABULARY)."""
        own = self.token(tokens)
        x = own + self.before(functional.pad(own, (0, 0, 1, 0))[:, :-1]) + self.place.weight[: tokens.shape[1]]
        return functional.linear(self.last(self.layers(x)), self.token.weight)


def windows(tokens: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Texts in windows of CONTEXT tokens: input and target, int64 (windows, CONTEXT), and the text of each window.

    A window sees what is in it only. What fills it after a text's end has the target -1, which counts for nothing.
    """
    inputs, targets, of_text = [], [], []
    for text, one in enumerate(tokens):
        with_end = np.concatenate([[END], one])
        for start in range(0, len(one), CONTEXT):
            part = with_end[start : start + CONTEXT + 1]
            inputs.append(np.pad(part[:-1], (0, CONTEXT + 1 - len(part)), constant_values=END))
            targets.append(np.pad(part[1:], (0, CONTEXT + 1 - len(part)), constant_values=-1))
            of_text.append(text)
    return np.array(inputs, int).reshape(-1, CONTEXT), np.array(targets, int).reshape(-1, CONTEXT), np.array(of_text)


@torch.no_grad()
def bits(model: nn.Module, texts: Texts) -> np.ndarray:
    """The bits that each text takes, as the model predicts its tokens: float64 (texts,)."""
    inputs, targets, of_text = windows(texts.tokens)
    total = np.zeros(len(texts.tokens))
    order = np.argsort((targets >= 0).sum(axis=1), kind="stable")  # windows of like length, so that little is filled up
    for start in range(0, len(order), 32):
        rows = order[start : start + 32]
        most = int((targets[rows] >= 0).sum(axis=1).max())
        scores = model(torch.from_numpy(inputs[rows, :most]))
        target = torch.from_numpy(targets[rows, :most])
        loss = functional.cross_entropy(scores.transpose(1, 2), target, ignore_index=-1, reduction="none")
        np.add.at(total, of_text[rows], loss.double().sum(dim=1).numpy() / math.log(2))
    return total


@dataclass(frozen=True)
class Trained:
    """``bits``: of each test text at the best look, float64; ``looks``: bits per byte of the validation texts."""

    bits: np.ndarray
    looks: list[float]


def train(subset: Texts, validation: Texts, test: Texts, steps: int, seed: int) -> Trained:
    """A model trained on ``subset`` for ``steps`` batches; the look that is best on ``validation`` is that tested.

    Weights and the order of texts are drawn by ``seed``; the rate falls in a straight line to nothing after a warm-up.
    """
    torch.manual_seed(seed)
    generator = np.random.default_rng(seed)
    model = Model()
    optimizer = torch.optim.AdamW(model.parameters(), RATE, betas=(0.9, 0.98), weight_decay=DECAY)
    warm = max(1, int(WARMUP * steps))
    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda at: min((at + 1) / warm, 1 - at / steps))
    looked_at = {round(steps * look / LOOKS) for look in range(1, LOOKS + 1)}
    looks: list[float] = []
    kept: dict[str, Tensor] = {}
    rest = np.zeros(0, int)
    for step in range(1, steps + 1):
        while len(rest) < BATCH * CONTEXT + 1:
            rest = np.concatenate([rest, subset.stream(generator)])
        batch, rest = rest[: BATCH * CONTEXT + 1], rest[BATCH * CONTEXT :]
        scores = model(torch.from_numpy(batch[:-1].reshape(BATCH, CONTEXT)))
        loss = functional.cross_entropy(scores.view(-1, VOCABULARY), torch.from_numpy(batch[1:]))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        rate.step()
        if step in looked_at:
            looks.append(float(bits(model, validation).sum() / validation.sizes.sum()))
            if looks[-1] == min(looks):
                kept = {name: weights.clone() for name, weights in model.state_dict().items()}
    model.load_state_dict(kept)
    return Trained(bits(model, test), looks)
