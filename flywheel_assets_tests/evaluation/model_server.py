"""A small server that speaks the part of vLLM's protocol that evaluation uses; what it says and refuses is a test's."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

Body = dict[str, Any]
Fault = int | bytes | str | None
"""A status, a body as it is sent, "cut" for a connection that ends in the middle of the answer, or None for none."""


class ModelServer(ThreadingHTTPServer):
    """Serves a base model named "base" and the adapters that are loaded; `say` writes every answer."""

    daemon_threads = True

    def __init__(self, say: Callable[[Body], str]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.say = say
        self.names: dict[str, str | None] = {"base": None}
        self.loads_adapters = True
        self.finish_reason = "stop"
        self.answers_as: str | None = None
        self.faults: list[Fault] = []
        """What the next answers of a model are instead, the first one first."""
        self.key: str | None = None
        self.asked: list[tuple[str, Body]] = []
        self.most_at_once = self.now = 0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def list_asked(self, path: str) -> list[Body]:
        """The bodies that were sent to a path."""
        return [body for each, body in self.asked if each == path]


class _Handler(BaseHTTPRequestHandler):
    server: ModelServer

    def do_GET(self) -> None:
        if self._is_allowed():
            data = [{"id": name, "object": "model", "parent": parent} for name, parent in self.server.names.items()]
            self._send(200, {"object": "list", "data": data})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        path = self.path.removeprefix("/v1/")
        with self.server.lock:
            self.server.asked.append((path, body))
            self.server.now += 1
            self.server.most_at_once = max(self.server.most_at_once, self.server.now)
        try:
            if self._is_allowed():
                self._answer(path, body)
        finally:
            with self.server.lock:
                self.server.now -= 1

    def _is_allowed(self) -> bool:
        if self.server.key is None or self.headers["authorization"] == f"Bearer {self.server.key}":
            return True
        self._send(401, {"error": "Unauthorized"})
        return False

    def _answer(self, path: str, body: Body) -> None:
        if path == "load_lora_adapter":
            folder = Path(body["lora_path"])
            if not self.server.loads_adapters or not (folder / "adapter_model.safetensors").is_file():
                self._send(404, {"error": "no such adapter"})
            else:
                self.server.names[body["lora_name"]] = "base"
                self._send(200, "Success")
        elif path == "unload_lora_adapter":
            del self.server.names[body["lora_name"]]
            self._send(200, "Success")
        elif body["model"] not in self.server.names:
            self._send(404, {"error": f"The model `{body['model']}` does not exist."})
        else:
            self._complete(path, body)

    def _complete(self, path: str, body: Body) -> None:
        with self.server.lock:
            fault = self.server.faults.pop(0) if self.server.faults else None
        said = self.server.say(body)
        message = {"text": said} if path == "completions" else {"message": {"role": "assistant", "content": said}}
        choice = {"index": 0, "finish_reason": self.server.finish_reason, **message}
        answer = json.dumps({"model": self.server.answers_as or body["model"], "choices": [choice]}).encode()
        if fault == "cut":
            self.send_response(200)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer[: len(answer) // 2])
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
        elif isinstance(fault, int):
            self._send(fault, {"error": "not now"})
        else:
            self._send(200, answer if fault is None else fault)

    def _send(self, status: int, content: object) -> None:
        encoded = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(encoded)))
        if status == 429:
            self.send_header("retry-after", "7")
        self.end_headers()
        self.wfile.write(encoded)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serve(say: Callable[[Body], str] = lambda body: "said") -> Iterator[ModelServer]:
    """Serve until the block ends."""
    server = ModelServer(say)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
