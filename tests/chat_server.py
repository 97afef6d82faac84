"""A real server on this machine that speaks OpenAI's chat completions, and remembers."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Reply:
    """What it answers: a text, or a status with a body of its own."""

    text: str | None = None
    status: int = 200
    body: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    finish: str = "stop"

    def raw(self) -> bytes:
        if self.body is not None:
            return self.body.encode()
        message = {"role": "assistant", "content": self.text}
        return json.dumps(
            {"choices": [{"message": message, "finish_reason": self.finish}]}
        ).encode()


@dataclass
class Server:
    """Its address, and every request in the order of arrival: path, headers, body."""

    url: str
    seen: list[tuple[str, dict[str, str], dict[str, Any]]] = field(default_factory=list)
    most: int = 0

    @property
    def asked(self) -> list[str]:
        """The last turn of each request."""
        return [body["messages"][-1]["content"] for _, _, body in self.seen]


@contextmanager
def serving(answer: Callable[[str, int], Reply]) -> Iterator[Server]:
    """Serves ``answer(prompt, number of the request)`` until the block ends."""
    lock, busy = threading.Lock(), [0]

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            text = self.rfile.read(int(self.headers["Content-Length"]))
            with lock:
                server.seen.append((self.path, dict(self.headers), json.loads(text)))
                number = len(server.seen)
                busy[0] += 1
                server.most = max(server.most, busy[0])
            try:
                reply = answer(server.seen[number - 1][2]["messages"][-1]["content"], number)
            finally:
                with lock:
                    busy[0] -= 1
            raw = reply.raw()
            self.send_response(reply.status)
            for name, value in {"Content-Length": str(len(raw)), **reply.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *_: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    server = Server(f"http://127.0.0.1:{http.server_address[1]}/v1")
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        thread.join()
        http.server_close()
