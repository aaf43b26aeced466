"""A real MLflow server in a process of its own, and an application in another one that logs traces there."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import httpx
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

EXPERIMENT = "support desk"

_APPLICATION = """
import json, sys
import mlflow
from mlflow.entities import AssessmentSource

mlflow.set_tracking_uri(sys.argv[1])
mlflow.set_experiment(sys.argv[2])
person = AssessmentSource(source_type="HUMAN", source_id="ann")

@mlflow.trace(span_type="CHAT_MODEL")
def chat(messages, answer):
    return {"choices": [{"message": {"role": "assistant", "content": answer}}]}

for line in sys.stdin:
    name, arguments = json.loads(line)
    if name == "chat":
        chat([{"role": "user", "content": arguments["question"]}], arguments["answer"])
        mlflow.flush_trace_async_logging()
        said = mlflow.get_last_active_trace_id()
    elif name == "feedback":
        said = mlflow.log_feedback(name="helpful", source=person, **arguments).assessment_id
    else:
        said = mlflow.log_expectation(name="expected_response", source=person, **arguments).assessment_id
    print(said, flush=True)
"""


@contextmanager
def mlflow_server(folder: Path, *, serves_artifacts: bool = False) -> Iterator[str]:
    """The address of a server whose database lies in `folder`.

    `serves_artifacts`: as on another machine, where clients reach no artifact by a path.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    uri = f"http://127.0.0.1:{port}"
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
        *("--backend-store-uri", f"sqlite:///{folder}/mlflow.db"),
        "--artifacts-destination" if serves_artifacts else "--default-artifact-root",
        str(folder / "artifacts"),
    ]
    with open(folder / "server.log", "wb") as log:
        # A session of its own: the server's workers end with it.
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, start_new_session=True)
    try:
        _wait_until_ready(uri, server)
        yield uri
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGTERM)
        server.wait()


@retry(stop=stop_after_delay(300), wait=wait_fixed(0.2), retry=retry_if_exception_type(httpx.TransportError))
def _wait_until_ready(uri: str, server: "subprocess.Popen[bytes]") -> None:
    assert server.poll() is None, "the server ended; see its server.log"
    httpx.get(f"{uri}/health", timeout=5.0).raise_for_status()


class TracedApplication:
    """Logs what a test says, each time returning the id that MLflow gave it."""

    def __init__(self, uri: str) -> None:
        command = [sys.executable, "-c", _APPLICATION, uri, EXPERIMENT]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def __enter__(self) -> "TracedApplication":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def chat(self, question: str, answer: str) -> str:
        return self._ask("chat", question=question, answer=answer)

    def rate(self, trace_id: str, value: bool) -> str:
        return self._ask("feedback", trace_id=trace_id, value=value)

    def expect(self, trace_id: str, value: str) -> str:
        return self._ask("expectation", trace_id=trace_id, value=value)

    def _ask(self, name: str, **arguments: Any) -> str:
        pipes: tuple[IO[str] | None, IO[str] | None] = (self._process.stdin, self._process.stdout)
        to, back = pipes
        assert to is not None
        assert back is not None
        to.write(json.dumps([name, arguments]) + "\n")
        to.flush()
        return back.readline().strip()
