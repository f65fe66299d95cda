"""A real server with OpenAI's interface for embeddings on this machine, which can be busy, fail and count."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

from novelsum.text.texts import digest_of

DIMENSION = 8


def vector_of(text: str) -> np.ndarray:
    """The embedding that the server gives a text."""
    seed = int.from_bytes(digest_of(text), "big")
    return np.random.default_rng(seed).normal(size=DIMENSION).astype(np.float32)


class EmbeddingServer(ThreadingHTTPServer):
    """Counts what it is asked.

    ``answer``: status and headers to give to the n-th request instead of embeddings; ``vectors_of``: what embeds texts.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer: Callable[[int], tuple[int, dict[str, str]] | None] = lambda number: None
        self.vectors_of: Callable[[list[str]], Any] = lambda texts: [vector_of(text) for text in texts]
        self.seconds = 0.0
        self.requests = self.flights = self.most_flights = 0
        self.texts: list[str] = []
        self.keys: set[str | None] = set()
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed is no error."""


class _Handler(BaseHTTPRequestHandler):
    server: EmbeddingServer

    def do_POST(self) -> None:
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            server.requests += 1
            number = server.requests
            server.flights += 1
            server.most_flights = max(server.most_flights, server.flights)
            server.keys.add(self.headers.get("Authorization"))
        time.sleep(server.seconds)
        instead = server.answer(number)
        if self.path != "/v1/embeddings" or body["model"] != "test-model":
            instead = 404, {}
        with server.lock:
            server.flights -= 1
            if instead is None:
                server.texts += body["input"]
        status, headers = instead or (200, {})
        vectors = np.asarray(server.vectors_of(body["input"])) if instead is None else []
        data = [
            {"index": place, "object": "embedding", "embedding": vector.tolist()}
            for place, vector in reversed(list(enumerate(vectors)))
        ]
        content = json.dumps({"data": data} if instead is None else {"error": {"message": "not now"}}).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *words: Any) -> None:
        """Nothing is logged."""


@contextmanager
def serving() -> Iterator[EmbeddingServer]:
    """A server that runs."""
    server = EmbeddingServer()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
