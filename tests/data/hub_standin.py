"""A stand-in for the hub on 127.0.0.1: just the answers that ``datasets`` asks for.

Run as a program it serves one data set (two splits, CSV files with a class label in the card),
reads it through :mod:`luthier.data.sources` with ``HF_ENDPOINT`` at itself, and prints what came.
The environment must be set before ``datasets`` is imported, hence a process of its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CARD = """---
configs:
- config_name: default
  data_files:
  - split: train
    path: train.csv
  - split: test
    path: test.csv
dataset_info:
  features:
  - name: text
    dtype: string
  - name: label
    dtype:
      class_label:
        names:
          '0': refund
          '1': greeting
---
"""
FILES = {
    "README.md": CARD.encode(),
    "train.csv": b'text,label\nI want my money back,0\n"hello, there",1\nlost parcel,-1\n',
    "test.csv": b"text,label\ngood morning,1\n",
}


class Hub(BaseHTTPRequestHandler):
    """Answers for ``luthier/tiny``; nothing else exists."""

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        asked = json.loads(self.rfile.read(length) or b"{}")
        self._send(200, _json([_entry(name) for name in asked.get("paths", []) if name in FILES]))

    def _answer(self, body: bool) -> None:
        path = self.path.split("?")[0]
        if os.environ.get("STANDIN_LOG"):
            print(self.command, self.path, file=sys.stderr)
        if path.startswith("/api/datasets/luthier/tiny/tree/"):
            self._send(200, _json([_entry(name) for name in FILES]), body=body)
        elif path.startswith("/api/datasets/luthier/tiny"):
            self._send(200, _json(_info()), body=body)
        elif path.startswith("/datasets/luthier/tiny/resolve/"):
            self._file(path.rsplit("/", 1)[1], body)
        else:
            self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"}, body=body)

    def _file(self, name: str, body: bool) -> None:
        if name not in FILES:
            self._send(404, b"", {"X-Error-Code": "EntryNotFound"}, body=body)
            return
        headers = {"ETag": f'"{_sha(name)}"', "X-Repo-Commit": COMMIT}
        self._send(200, FILES[name], headers, body=body)

    def _send(
        self, status: int, content: bytes, headers: dict[str, str] | None = None, body: bool = True
    ) -> None:
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the base names it)
        """Says nothing."""


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _sha(name: str) -> str:
    return hashlib.sha1(FILES[name]).hexdigest()


def _entry(name: str) -> dict[str, Any]:
    return {"type": "file", "path": name, "size": len(FILES[name]), "oid": _sha(name)}


def _info() -> dict[str, Any]:
    return {
        "id": "luthier/tiny",
        "author": "luthier",
        "sha": COMMIT,
        "private": False,
        "gated": False,
        "disabled": False,
        "tags": [],
        "downloads": 0,
        "likes": 0,
        "siblings": [{"rfilename": name} for name in FILES],
    }


def main(names: list[str]) -> None:
    """Serves, reads each name, prints one JSON line for each: its rows or its fault."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    os.environ.setdefault("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")

    from luthier.core.errors import UserError
    from luthier.data.sources import read

    for name in names:
        try:
            (source,) = read(name)
            rows = [[row.origin.line, dict(row.fields)] for row in source.rows]
            print(json.dumps({"name": source.name, "rows": rows}), flush=True)
        except UserError as error:
            fault = error.faults[0]
            print(json.dumps({"code": fault.code, "text": str(fault)}), flush=True)
    server.shutdown()


if __name__ == "__main__":
    main(sys.argv[1:])
