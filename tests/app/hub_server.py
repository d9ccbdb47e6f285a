"""A server on this machine that answers as the Hugging Face hub does, over real HTTP."""

from __future__ import annotations

import hashlib
import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """What the server holds and what it was asked."""

    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refuse: dict[str, tuple[int, str]] = field(default_factory=dict)  # path -> status, X-Error-Code
    lie: dict[str, int] = field(default_factory=dict)  # file -> the size it is said to have
    wrong: set[str] = field(default_factory=set)  # files whose checksum is another's
    cut: dict[str, int] = field(default_factory=dict)  # file -> bytes after which it hangs up, once
    stall: dict[str, int] = field(default_factory=dict)  # file -> bytes after which it waits, once
    no_ranges: bool = False
    asked: list[tuple[str, str]] = field(default_factory=list)  # path, Range
    tokens: list[str] = field(default_factory=list)
    url: str = ""
    closing: threading.Event = field(default_factory=threading.Event)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *arguments: object) -> None:
        pass

    def do_CONNECT(self) -> None:
        self.answer(403, b"")

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.hub.asked.append((path, self.headers.get("Range", "")))
        self.hub.tokens.append(self.headers.get("Authorization", ""))
        for start, (status, code) in self.hub.refuse.items():
            if path.startswith(start):
                self.answer(status, b"{}", {"X-Error-Code": code})
                return
        if path.startswith("/api/models/"):
            self.describe("/".join(path.split("/")[3:5]))
        else:
            _, owner, name, _, _, file = path.split("/", 5)
            self.send_file(f"{owner}/{name}", file)

    def describe(self, name: str) -> None:
        files = self.hub.repositories.get(name)
        if files is None:
            self.answer(401, b"{}", {"X-Error-Code": "RepoNotFound"})
            return
        siblings = []
        for file, data in files.items():
            size = self.hub.lie.get(file, len(data))
            sha256 = hashlib.sha256(b"x" if file in self.hub.wrong else data).hexdigest()
            entry: dict[str, object] = {"rfilename": file, "size": size, "blobId": "0" * 40}
            if file.endswith((".gguf", ".safetensors")):
                entry["lfs"] = {"sha256": sha256, "size": size, "pointerSize": 100}
            siblings.append(entry)
        facts = {"id": name, "modelId": name, "sha": COMMIT, "siblings": siblings, "tags": []}
        self.answer(200, json.dumps(facts).encode(), {"Content-Type": "application/json"})

    def send_file(self, name: str, file: str) -> None:
        data = self.hub.repositories[name][file]
        wanted = "" if self.hub.no_ranges else self.headers.get("Range", "")
        first = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(data) - first))
        if wanted:
            self.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        stall = self.hub.stall.pop(file, 0)
        limit = self.hub.cut.pop(file, 0) or stall
        self.wfile.write(data[first : limit or None])
        self.wfile.flush()
        if stall:
            self.hub.closing.wait(60)
        if limit:
            self.close_connection = True

    def answer(self, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def running_hub() -> Iterator[Hub]:
    """The server, for as long as the block lasts."""
    holds = Hub()
    made = type("Bound", (Handler,), {"hub": holds})
    socketserver.TCPServer.allow_reuse_address = True
    with ThreadingHTTPServer(("127.0.0.1", 0), made) as running:
        running.daemon_threads = True
        holds.url = f"http://127.0.0.1:{running.server_address[1]}"
        thread = threading.Thread(target=running.serve_forever, args=(0.05,))
        thread.start()
        yield holds
        holds.closing.set()
        running.shutdown()
        thread.join()
