"""A model hub on this machine: answers what huggingface_hub asks for, and counts the questions."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

COMMIT = "0123456789abcdef0123456789abcdef01234567"
ASKED = re.compile(rf"/(?P<repo>[^/]+/[^/]+)/resolve/(?:main|{COMMIT})/model\.safetensors")


@dataclass
class Stored:
    """One repository's model.safetensors.

    `breaks` says after how many bytes a download breaks off; what asks for the rest gets a 500.
    """

    content: bytes
    sha256: str
    breaks: int | None = None


@dataclass
class FakeHub:
    """`requests` has a line such as "GET timm/name" for each; a large file is behind a redirect."""

    files: dict[str, Stored] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        self.cdn = f"http://localhost:{self.server.server_port}/cdn"  # as it were another machine
        self.thread = Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    def put(self, repo: str, content: bytes, sha256: str = "") -> Stored:
        """Publishes a file; `sha256` is another one than its own for a hub that lies."""
        stored = Stored(content, sha256 or hashlib.sha256(content).hexdigest())
        self.files[repo] = stored
        return stored

    def downloads(self) -> int:
        return sum(line.startswith("GET /cdn") for line in self.requests)

    def close(self) -> None:
        """From here on nobody listens at its address."""
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def _handler(hub: FakeHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, body: bool) -> None:
            hub.requests.append(f"{self.command} {self.path}")
            if self.path.startswith("/cdn/"):
                self.send_file(hub.files[self.path.removeprefix("/cdn/")], body)
            elif (asked := ASKED.fullmatch(self.path)) and (repo := asked["repo"]) in hub.files:
                stored = hub.files[repo]
                self.send_response(302)
                self.send_header("Location", f"{hub.cdn}/{repo}")
                self.send_header("X-Repo-Commit", COMMIT)
                self.send_header("X-Linked-Etag", f'"{stored.sha256}"')
                self.send_header("X-Linked-Size", str(len(stored.content)))
                self.send_header("Content-Length", "0")
                self.end_headers()
            else:
                self.send_response(404)
                self.send_header("X-Error-Code", "RepoNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()

        def send_file(self, stored: Stored, body: bool) -> None:
            wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "bytes=0-"))
            start = int(wanted[1]) if wanted else 0
            if stored.breaks is not None and start > 0:
                self.send_response(500)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(stored.content) - start))
            self.end_headers()
            if body:
                self.wfile.write(stored.content[start : stored.breaks])
            if stored.breaks is not None:
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    return Handler
