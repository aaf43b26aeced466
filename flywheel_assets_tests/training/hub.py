"""A model hub on this machine: as much of the hub's protocol as its own client library needs to fetch a model."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

_COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def serve_hub(models: dict[str, Path]) -> Iterator[tuple[str, list[str]]]:
    """Serve folders as models by their ids; yield the address, and the list of paths that were asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def log_message(self, *_: Any) -> None:
            pass

        def _answer(self, *, with_body: bool) -> None:
            path = self.path.partition("?")[0]
            asked.append(path)
            status, body = self._find(path)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("X-Repo-Commit", _COMMIT)
            if status == 200:
                self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
            else:
                self.send_header("X-Error-Code", "EntryNotFound")
            self.end_headers()
            if with_body:
                self.wfile.write(body)

        def _find(self, path: str) -> tuple[int, bytes]:
            for name, folder in models.items():
                files = sorted(each for each in folder.iterdir() if each.is_file())
                if path.startswith(f"/api/models/{name}/tree/"):
                    listed = [
                        {"type": "file", "path": each.name, "size": each.stat().st_size, "oid": _COMMIT}
                        for each in files
                    ]
                    return 200, json.dumps([] if path.endswith("_templates") else listed).encode()
                if path.startswith(f"/api/models/{name}"):
                    siblings = [{"rfilename": each.name} for each in files]
                    return 200, json.dumps({"id": name, "sha": _COMMIT, "siblings": siblings}).encode()
                if path.startswith(f"/{name}/resolve/"):
                    file = folder / path.rpartition("/")[2]
                    return (200, file.read_bytes()) if file.is_file() else (404, b"")
            return 404, b""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
