"""A server with the interface of OpenAI's ``/v1/embeddings``, asked by the standard library alone."""

import email.utils
import http.client
import json
import logging
import os
import random
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from novelsum.errors import RunError, first_line

logger = logging.getLogger("novelsum")

REQUEST_TEXTS = 64
TRIES = 8
FIRST_TRIES = 5
"""Of a server that has never answered: its URL may be wrong."""
_LONGEST_WAIT_SECONDS = 60.0
_TIMEOUT_SECONDS = 300.0
_AGAIN = (408, 409, 425, 429, 500, 502, 503, 504)
"""Answers after which the same request may succeed."""
_AGAIN_IN = "%s %s; asked again in %.1f s"


class Server:
    """A server by its URL, and the model that it is asked for. The key is that of OPENAI_API_KEY, if it is set."""

    def __init__(self, url: str, model: str) -> None:
        base = url.rstrip("/")
        if not base.endswith("/embeddings"):
            base += "/embeddings" if base.endswith("/v1") else "/v1/embeddings"
        self._url, self._model = base, model
        self._has_answered = False

    def embed(self, texts: Sequence[str], flights: int) -> NDArray[np.float32]:
        """The embeddings (n, D) of the texts, with at most so many requests at the same time.

        Raises RunError where the server refuses, or fails and goes on failing.
        """
        parts = [list(texts[at : at + REQUEST_TEXTS]) for at in range(0, len(texts), REQUEST_TEXTS)]
        with ThreadPoolExecutor(max(1, flights)) as threads:
            found = list(threads.map(self._ask, parts))
        lengths = {part.shape[1] for part in found}
        if len(lengths) > 1:
            raise RunError(f"{self._url} gave embeddings of different lengths, {sorted(lengths)}; serve one model")
        return np.concatenate(found) if found else np.zeros((0, 0), dtype=np.float32)

    def _ask(self, texts: list[str]) -> NDArray[np.float32]:
        body = json.dumps({"model": self._model, "input": texts, "encoding_format": "float"}).encode()
        key = os.environ.get("OPENAI_API_KEY")
        headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
        for attempt in range(1, TRIES + 1):
            wait, told = None, ""
            try:
                request = urllib.request.Request(self._url, body, headers)
                with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as answer:
                    self._has_answered = True
                    return self._vectors(answer.read(), len(texts))
            except urllib.error.HTTPError as error:
                self._has_answered = True
                told = f"answers {error.code} {error.reason}{_said(error)}"
                if error.code not in _AGAIN:
                    raise RunError(f"{self._url} {told}; mend that and run again to go on") from None
                wait = _retry_after(error.headers.get("Retry-After"))
            except (OSError, http.client.HTTPException) as error:
                told = f"cannot be reached: {first_line(error)}"
            if attempt >= FIRST_TRIES and not self._has_answered:
                raise RunError(
                    f"{self._url} {told}, after {attempt} tries; see that it is what --server is to name and that it "
                    "runs, and run again to go on"
                )
            if attempt < TRIES:
                backoff = min(_LONGEST_WAIT_SECONDS, 0.5 * 2 ** (attempt - 1)) * random.uniform(0.5, 1.0)
                seconds = backoff if wait is None else min(wait, _LONGEST_WAIT_SECONDS)
                logger.log(logging.WARNING if attempt > 2 else logging.INFO, _AGAIN_IN, self._url, told, seconds)
                time.sleep(seconds)
        raise RunError(f"{self._url} {told}, after {TRIES} tries; run again to go on once it answers")

    def _vectors(self, answer: bytes, texts: int) -> NDArray[np.float32]:
        try:
            data: list[dict[str, Any]] = json.loads(answer)["data"]
            ordered = sorted(data, key=lambda one: int(one["index"]))
            vectors = np.array([one["embedding"] for one in ordered], dtype=np.float32)
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(
                f"{self._url} gave no embeddings as OpenAI's interface has them ({first_line(error)})"
            ) from None
        if vectors.ndim != 2 or len(vectors) != texts:
            raise RunError(f"{self._url} gave {len(vectors)} embeddings for {texts} texts")
        return vectors


def _said(error: urllib.error.HTTPError) -> str:
    """What the answer of an error says beside its code, on one line."""
    try:
        said = " ".join(error.read(300).decode(errors="replace").split())
    except (OSError, http.client.HTTPException):
        return ""
    return f" ({said})" if said else ""


def _retry_after(header: str | None) -> float | None:
    """The seconds that a server asks to wait, as a number or until a date; None where it does not."""
    if header is None:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(header).timestamp() - time.time())
    except ValueError:
        return None
