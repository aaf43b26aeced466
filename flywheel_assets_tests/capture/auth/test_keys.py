import json
import logging
import os
import re
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from flywheel_assets.capture.auth.keys import (
    KeyRequest,
    KeyStore,
    Scope,
    WebhookSecret,
    create_key,
    read_keys,
    revoke_key,
)
from flywheel_assets.errors import SettingsError, UnknownNameError
from flywheel_assets_tests.capture.samples import NOON, Seconds

WEB = KeyRequest("assistant", "web", origins=["https://app.example"])
HOOK = KeyRequest("assistant", "crm", is_webhook=True)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "keys.json"


def test_a_key_has_32_random_bytes_and_only_its_hash_is_kept(path: Path) -> None:
    created = [create_key(path, KeyRequest("assistant", f"backend {n}"), NOON) for n in range(20)]
    secrets = {key.secret.split("_", 2)[2] for key in created}
    assert len(secrets) == 20
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{43}", secret) for secret in secrets)  # 43 × 6 bits ≥ 32 × 8
    kept = path.read_text()
    assert not any(secret in kept for secret in secrets)
    assert not any(key.secret in repr(key) for key in created)


def test_only_the_owner_can_read_the_file(path: Path) -> None:
    create_key(path, HOOK, NOON)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o640)
    with pytest.raises(SettingsError, match="mode 640, so that others can read or change it: chmod 600"):
        read_keys(path)


def test_a_key_opens_with_its_whole_text_and_nothing_else(path: Path) -> None:
    created = create_key(path, KeyRequest("assistant", "backend"), NOON)
    store = KeyStore(path)
    found = store.find(created.secret)
    assert found is not None
    assert found.key_id == created.key_id
    changed = "A" if created.secret[-1] != "A" else "B"
    prefix = created.secret.rsplit("_", 1)[0]
    for wrong in ("", created.secret[:-1], created.secret[:-1] + changed, created.secret + "A", prefix, "é" * 60):
        assert store.find(wrong) is None
    assert store.find(created.secret.replace("flw_", "flwpub_")) is None


def test_two_keys_are_active_during_a_rotation_and_a_third_is_refused(path: Path) -> None:
    old = create_key(path, KeyRequest("assistant", "backend"), NOON)
    new = create_key(path, KeyRequest("assistant", "backend"), NOON)
    store = KeyStore(path)
    assert store.find(old.secret)
    assert store.find(new.secret)
    with pytest.raises(SettingsError, match=f"2 active keys for assistant already, {old.key_id} and {new.key_id}"):
        create_key(path, KeyRequest("assistant", "backend"), NOON)
    create_key(path, KeyRequest("assistant", "another"), NOON)
    revoke_key(path, old.key_id, NOON)
    store = KeyStore(path)
    assert store.find(old.secret) is None
    assert store.find(new.secret)
    create_key(path, KeyRequest("assistant", "backend"), NOON)


def test_a_running_service_notices_new_and_revoked_keys_within_a_second(path: Path) -> None:
    clock = Seconds()
    first = create_key(path, KeyRequest("assistant", "backend"), NOON)
    store = KeyStore(path, clock)
    second = create_key(path, KeyRequest("assistant", "backend"), NOON)
    revoke_key(path, first.key_id, NOON)
    assert store.find(first.secret), "it looks at the file once a second, not at every request"
    clock.now += 1.0
    assert store.find(first.secret) is None
    assert store.find(second.secret)


@pytest.mark.parametrize("harm", ["gone", "readable", "broken"])
def test_a_slip_in_the_file_leaves_the_keys_as_they_were_and_is_logged(
    path: Path, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever edits the file by hand must not make a running service refuse every event."""
    clock = Seconds()
    created = create_key(path, KeyRequest("assistant", "backend"), NOON)
    store = KeyStore(path, clock)
    if harm == "gone":
        path.unlink()
    elif harm == "readable":
        path.chmod(0o644)
    else:
        path.write_text('{"keys": [{"key_id": "SECRET"')
    clock.now += 1.0
    assert store.find(created.secret)
    assert "the keys stay as they were" in caplog.text
    assert "SECRET" not in caplog.text


def test_revoking_the_last_key_does_not_open_the_doors(path: Path) -> None:
    created = create_key(path, KeyRequest("assistant", "backend"), NOON)
    revoke_key(path, created.key_id, NOON)
    assert read_keys(path).was_ever_used
    assert not read_keys(path.with_name("none.json")).was_ever_used


def test_a_revoked_webhook_secret_is_forgotten(path: Path) -> None:
    created = create_key(path, HOOK, NOON)
    assert created.secret in path.read_text()
    revoked = revoke_key(path, created.key_id, NOON)
    assert created.secret not in path.read_text()
    assert KeyStore(path).list_webhook_secrets("assistant") == []
    assert revoke_key(path, created.key_id, NOON) == revoked


def test_no_secret_is_shown_by_repr(path: Path) -> None:
    created = create_key(path, HOOK, NOON)
    (record,) = read_keys(path).webhook_secrets
    assert isinstance(record, WebhookSecret)
    assert created.secret not in repr(record) + repr(read_keys(path)) + repr(created)


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        (KeyRequest("assistant", "x", scopes=[]), "needs a scope; valid: write, review, admin"),
        (KeyRequest("assistant", "x", scopes=[Scope.REVIEW], origins=["https://a.example"]), "only scope can be write"),
        (KeyRequest("assistant", "x", scopes=[Scope.ADMIN], is_webhook=True), "scope write and no origins"),
        (KeyRequest("*", "x", is_webhook=True), "belongs to one application"),
        (KeyRequest("assistant", "x", events_per_s=0), "valid: more than 0"),
        *(
            (KeyRequest("assistant", "x", origins=[origin]), "valid: scheme and host as a browser sends them")
            for origin in ("*", "app.example", "https://", "https://a.example/", "https://a.example/x", "null",
                           "file://x", "https://u:p@a.example/", "https://[", "https://a:99999")
        ),
    ],
)  # fmt: skip
def test_a_key_that_makes_no_sense_is_not_created(path: Path, request_: KeyRequest, says: str) -> None:
    with pytest.raises(SettingsError) as error:
        create_key(path, request_, NOON)
    assert says in str(error.value)
    assert not path.exists()


def test_an_unknown_key_id_names_the_known_ones(path: Path) -> None:
    created = create_key(path, WEB, NOON)
    with pytest.raises(UnknownNameError, match=f"'nobody'; known: {created.key_id}"):
        revoke_key(path, "nobody", NOON)


def test_keys_created_at_the_same_time_are_all_kept(path: Path) -> None:
    def create(number: int) -> str:
        return create_key(path, KeyRequest("assistant", f"holder {number}"), NOON).key_id

    with ThreadPoolExecutor(8) as pool:
        created = set(pool.map(create, range(24)))
    assert {key.key_id for key in read_keys(path).keys} == created
    assert sorted(os.listdir(path.parent)) == ["keys.json", "keys.json.lock"]


@pytest.mark.parametrize("content", ["", "[]", '{"keys": 1}', '{"keys": [], "extra": 1}', "\udcff"])
def test_a_file_that_is_none_of_ours(path: Path, content: str) -> None:
    path.parent.mkdir()
    path.write_text(content, errors="surrogateescape")
    path.chmod(0o600)
    with pytest.raises(SettingsError, match="is not a file of keys"):
        KeyStore(path)


def test_origins_are_those_of_active_browser_keys(path: Path) -> None:
    web = create_key(path, WEB, NOON)
    create_key(path, KeyRequest("*", "everywhere", origins=["http://localhost:3000"]), NOON)
    create_key(path, KeyRequest("copilot", "web", origins=["https://copilot.example"]), NOON)
    assert KeyStore(path).list_origins("assistant") == {"https://app.example", "http://localhost:3000"}
    revoke_key(path, web.key_id, NOON)
    assert KeyStore(path).list_origins("assistant") == {"http://localhost:3000"}


def test_the_command_line_creates_lists_and_revokes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    from flywheel_assets import cli

    environment = {"FLYWHEEL_CAPTURE_KEYS_FILE": str(tmp_path / "keys.json")}
    monkeypatch.setattr(cli.terminal.console, "width", 200)

    def flywheel(*arguments: str) -> Any:
        from flywheel_assets.settings import read_settings

        read_settings.cache_clear()
        try:
            return CliRunner().invoke(cli.app, ["keys", *arguments], env=environment)
        finally:
            read_settings.cache_clear()

    created = flywheel("create", "assistant", "--holder", "[bold]web", "--origin", "https://app.example")
    secret = created.stdout.strip()
    assert KeyStore(tmp_path / "keys.json").find(secret)
    listed = flywheel("list").stdout
    assert secret.split("_")[1] in listed
    assert "[bold]web" in listed
    assert secret not in listed
    assert flywheel("revoke", secret.split("_")[1]).exit_code == 0
    assert KeyStore(tmp_path / "keys.json").find(secret) is None
    assert isinstance(flywheel("create", "asistant", "--holder", "x").exception, UnknownNameError)


def test_no_key_in_the_log(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    created = [create_key(path, KeyRequest("assistant", "x"), NOON), create_key(path, HOOK, NOON)]
    KeyStore(path).find(created[0].secret)
    assert not any(key.secret in caplog.text for key in created)
    assert json.loads(path.read_text())["keys"][0]["sha256"] not in caplog.text
