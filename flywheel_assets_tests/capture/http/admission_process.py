"""A capture process of its own with keys, for tests that look at its memory and its CPU time from outside."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx

from flywheel_assets.capture.auth.keys import KeyRequest, create_key

ORIGIN = "https://app.example"
PROXY = "10.9.9.9"
_PROCESS = (
    "import pathlib, sys\n"
    "from flywheel_assets.capture.service import serve\n"
    "from flywheel_assets.settings import Settings\n"
    "settings = Settings(home=pathlib.Path(sys.argv[1]), capture_port=0)\n"
    "serve(settings, ['assistant'], on_ready=lambda url: print(url, flush=True))\n"
)


@dataclass(frozen=True)
class CaptureProcess:
    url: str
    pid: int
    secrets: dict[str, str]
    """`backend` and `slow` of servers, `page` and `slow_page` of browsers, `crm` of webhooks."""

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.url.removeprefix("http://").split(":")
        return host, int(port)

    def connect(self, source: str = "127.0.0.1") -> socket.socket:
        return socket.create_connection(self.address, timeout=10, source_address=(source, 0))

    def open_client(self, source: str) -> httpx.Client:
        """Open a client at one of loopback's many addresses."""
        return httpx.Client(base_url=self.url, timeout=30, transport=httpx.HTTPTransport(local_address=source))

    def build_headers(self, name: str) -> dict[str, str]:
        """What a server sends, or what a page does: everybody can read its key and invent the origin."""
        page = {"origin": ORIGIN} if "page" in name else {}
        return {"content-type": "application/json", "authorization": f"Bearer {self.secrets[name]}", **page}

    def read_peak_bytes(self) -> int:
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024

    def reset_peak(self) -> None:
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def read_cpu_s(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def running_process(home: Path) -> Iterator[CaptureProcess]:
    keys = home / "capture_keys.json"
    home.mkdir(parents=True, exist_ok=True)
    requests = {
        "backend": KeyRequest("assistant", "backend", events_per_s=1e6),
        "slow": KeyRequest("assistant", "slow", events_per_s=10.0),
        "page": KeyRequest("assistant", "page", origins=[ORIGIN], events_per_s=1e6),
        "slow_page": KeyRequest("assistant", "slow page", origins=[ORIGIN], events_per_s=10.0),
        "crm": KeyRequest("assistant", "crm", is_webhook=True),
    }
    secrets = {name: create_key(keys, request, datetime.now(UTC)).secret for name, request in requests.items()}
    # Loopback is a proxy by default, whose connections are not counted: here it is a client like any other.
    environment = os.environ | {"FLYWHEEL_CAPTURE_TRUSTED_PROXIES": PROXY}
    command = [sys.executable, "-c", _PROCESS, str(home)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            yield CaptureProcess(process.stdout.readline().strip(), process.pid, secrets)
        finally:
            process.kill()
