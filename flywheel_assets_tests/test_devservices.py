"""`make dev`'s services end together: with their children, also when they do not want to."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flywheel_assets import devservices
from flywheel_assets.devservices import Service, hold_home, stop_processes
from flywheel_assets.errors import SettingsError

_SLEEP = "[sys.executable, '-c', 'import time; time.sleep(60)']"
_CHILD = f"import subprocess, sys; print(subprocess.Popen({_SLEEP}).pid, flush=True)"


def start(code: str, **options: object) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-c", code], start_new_session=True, stdout=subprocess.PIPE, **options)


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_a_service_ends_with_its_children(monkeypatch: pytest.MonkeyPatch) -> None:
    """`dagster dev` in the background outlived SIGINT by a minute, and its code servers outlived it."""
    monkeypatch.setattr(devservices, "_STOP_DEADLINE_S", 0.5)
    stubborn = start(f"import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); {_CHILD}; time.sleep(60)")
    assert stubborn.stdout is not None
    child = int(stubborn.stdout.readline())
    stop_processes([stubborn])
    stubborn.wait(5)
    deadline = time.monotonic() + 5
    while is_alive(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_alive(child)
    assert not is_alive(stubborn.pid)
    stubborn.stdout.close()


def test_one_service_that_dies_is_named() -> None:
    died = start("raise SystemExit(3)")
    with pytest.raises(SettingsError, match="mlflow ended with 3"):
        devservices._wait_for_first_exit([Service("mlflow", [], "")], [died])
    assert died.stdout is not None
    died.stdout.close()


def test_dev_says_where_it_must_be_started(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "flywheel_assets.cli", "dev"]
    failed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=dict(os.environ))
    assert failed.returncode == 1
    assert "workspace.yaml does not exist; run from the project's folder" in failed.stderr


def test_two_sets_of_services_on_one_home_exclude_each_other(tmp_path: Path) -> None:
    """Two daemons on one home ran each schedule, and each capture sealed the other's segments."""
    with hold_home(tmp_path / "home"), pytest.raises(SettingsError, match="another `flywheel dev`, or a service that"):
        hold_home(tmp_path / "home").__enter__()
    with hold_home(tmp_path / "home"):
        pass


def test_a_service_that_a_killed_dev_left_behind_still_holds_the_home(tmp_path: Path) -> None:
    left = Service("left", [sys.executable, "-c", "print(1, flush=True); input()"], "")
    code = (
        "import os, signal; from pathlib import Path; from flywheel_assets import devservices as dev;"
        f"held = dev.hold_home(Path({str(tmp_path)!r})); lock = held.__enter__();"
        f"child = dev._start_service(dev.Service('left', {list(left.command)!r}, ''), os.environ, lock=lock);"
        "dev._note_processes(lock, [child]); print(child.pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    command = [sys.executable, "-c", code]
    killed = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=dict(os.environ))
    assert killed.stdin is not None
    assert killed.stdout is not None
    service = max(int(killed.stdout.readline()), int(killed.stdout.readline()))
    killed.wait()
    with pytest.raises(SettingsError, match=f"end it: `kill -- -{service}; sleep 20; kill -KILL -- -{service}`"):
        hold_home(tmp_path).__enter__()
    killed.stdin.close()  # the service's as well: it ends
    killed.stdout.read()
    killed.stdout.close()
    deadline = time.monotonic() + 5
    while is_alive(service) and time.monotonic() < deadline:
        time.sleep(0.05)
    with hold_home(tmp_path):
        pass


def test_what_a_service_prints_goes_into_its_log(tmp_path: Path) -> None:
    """Two warnings of other packages greeted the first start, and drowned the addresses."""
    log = tmp_path / "logs" / "loud.log"
    loud = Service("loud", [sys.executable, "-c", "import sys; print('out'); print('err', file=sys.stderr)"], "")
    process = devservices._start_service(loud, dict(os.environ), log)
    assert process.wait(30) == 0
    assert sorted(log.read_text().split()) == ["err", "out"]
    with pytest.raises(SettingsError, match=r"loud ended with 0; the end of <home>/logs/loud\.log says why"):
        devservices._check_alive([loud], [process])


def test_each_service_that_answers_is_waited_for() -> None:
    services = {each.name: each.probe for each in devservices._list_services(3999, 5999)}
    assert services["dagster"] == "http://127.0.0.1:3999/server_info"
    assert services["mlflow"] == "http://127.0.0.1:5999/health"
    assert services["capture"].endswith("/readyz")
