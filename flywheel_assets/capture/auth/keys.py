"""Stores the keys of applications and the secrets of webhooks in one private file.

A key is `flw_<key id>_<secret>`, or `flwpub_…` for one that a web page shows to everybody. The secret is 32 random
bytes, so that one round of SHA-256 protects it at rest as well as a slow hash would: 2**256 values cannot be tried, and
a slow hash on every request would be a way to overload the service. The file holds only the hash and the key id, which
is no secret. A webhook secret must be known to verify an HMAC, so it lies in the file as it is: that is why only the
file's owner may read it.

Rotation: at most two keys of one holder are active. Create the second, give it to the holder, revoke the first.
Running services look at the file once a second.
"""

import hashlib
import hmac
import logging
import os
import re
import secrets
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
from filelock import FileLock

from flywheel_assets.errors import SettingsError, UnknownNameError
from flywheel_assets.lake.storage.files import sync_folder

log = logging.getLogger(__name__)

EVERY_APPLICATION = "*"
MOST_ACTIVE = 2
WEBHOOK_PREFIX = "whsec_"

_SECRET_BYTES = 32
_KEY = re.compile(r"(?:flw|flwpub)_([0-9a-f]{12})_[A-Za-z0-9_-]{43}")
_RELOAD_S = 1.0


class Scope(StrEnum):
    """Names what a key may do; no scope includes another."""

    WRITE = "write"
    """Send events."""
    REVIEW = "review"
    """Read and decide what waits for a human review."""
    ADMIN = "admin"
    """Read the service's metrics."""
    IMPORT = "import"
    """Land history on its own days, which changes closed days."""


class Key(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Describes one key as it is stored: everything but its secret."""

    key_id: str
    application: str
    holder: str
    """The user of the key, in words: a service, a web page, a person."""
    scopes: list[Scope]
    sha256: str
    created_at: datetime
    revoked_at: datetime | None = None
    origins: list[str] = []
    """A browser key works from pages of these origins, and only from there. Empty: a key for servers."""
    events_per_s: float | None = None
    """Rate limit of this key; None: the service's default."""
    labels_as: list[str] = []
    """The trusted labeling sources that labels sent with it may claim."""
    sources: list[str] = []
    """Sources that events sent with it may name, each counted by itself; any other one counts as the holder's."""
    users_are_claimed: bool = False
    """A server's key that passes user ids on which its server has not checked: it vouches for none."""

    @property
    def attests_users(self) -> bool:
        """Return whether the user ids that come with it are those of signed-in users."""
        return not (self.is_for_browsers or self.users_are_claimed)

    @property
    def is_for_browsers(self) -> bool:
        """Return whether the key is shown in a page, where everybody can read it."""
        return bool(self.origins)

    def is_for(self, application: str) -> bool:
        """Return whether it is a key of this application."""
        return self.application in (application, EVERY_APPLICATION)


class WebhookSecret(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Holds one secret with which another server signs its webhooks (Standard Webhooks); it grants `write`."""

    key_id: str
    application: str
    holder: str
    secret: str
    created_at: datetime
    revoked_at: datetime | None = None
    events_per_s: float | None = None
    labels_as: list[str] = []
    """The trusted labeling sources that labels signed with it may claim."""
    sources: list[str] = []
    """As those of a key."""
    users_are_claimed: bool = False
    """As of a key."""

    @property
    def attests_users(self) -> bool:
        """Return whether the user ids that it signs are those of signed-in users."""
        return not self.users_are_claimed

    def __repr__(self) -> str:
        return f"WebhookSecret(key_id={self.key_id!r}, application={self.application!r}, holder={self.holder!r})"


class KeyFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Describes the content of the file."""

    keys: list[Key] = []
    webhook_secrets: list[WebhookSecret] = []

    @property
    def records(self) -> list[Key | WebhookSecret]:
        """List keys and webhook secrets together."""
        return [*self.keys, *self.webhook_secrets]

    @property
    def was_ever_used(self) -> bool:
        """Return whether there is any record, revoked ones included.

        Revoking the last key does not open the service.
        """
        return bool(self.records)


@dataclass(frozen=True)
class CreatedKey:
    """Holds a new key; its secret can be seen only here."""

    key_id: str
    secret: str = field(repr=False)


@dataclass(frozen=True)
class KeyRequest:
    """Describes the key to create."""

    application: str
    holder: str
    scopes: Sequence[Scope] = (Scope.WRITE,)
    origins: Sequence[str] = ()
    is_webhook: bool = False
    events_per_s: float | None = None
    labels_as: Sequence[str] = ()
    sources: Sequence[str] = ()
    users_are_claimed: bool = False


def create_key(path: Path, request: KeyRequest, now: datetime) -> CreatedKey:
    """Add a key to the file; create the file where there is none.

    Raises:
        SettingsError: the request contradicts itself, or the holder has two active keys already.
    """
    _check_request(request)
    with _lock_for_change(path):
        held = read_keys(path)
        active = [record for record in held.records if _is_same_holder(record, request) and record.revoked_at is None]
        if len(active) >= MOST_ACTIVE:
            ids = " and ".join(record.key_id for record in active)
            raise SettingsError(
                f"{request.holder!r} has {len(active)} active keys for {request.application} already, {ids}: revoke "
                "the one that is not used any more, or name another holder"
            )
        key_id = secrets.token_hex(6)
        if request.is_webhook:
            secret = WEBHOOK_PREFIX + b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()
            webhook = WebhookSecret(
                key_id,
                request.application,
                request.holder,
                secret,
                now.astimezone(UTC),
                events_per_s=request.events_per_s,
                labels_as=sorted(set(request.labels_as)),
                sources=sorted(set(request.sources)),
                users_are_claimed=request.users_are_claimed,
            )
            _write_keys(path, KeyFile(held.keys, [*held.webhook_secrets, webhook]))
        else:
            prefix = "flwpub" if request.origins else "flw"
            secret = f"{prefix}_{key_id}_{secrets.token_urlsafe(_SECRET_BYTES)}"
            key = Key(
                key_id=key_id,
                application=request.application,
                holder=request.holder,
                scopes=sorted(set(request.scopes)),
                sha256=_hash_secret(secret),
                created_at=now.astimezone(UTC),
                origins=[origin.lower() for origin in request.origins],
                events_per_s=request.events_per_s,
                labels_as=sorted(set(request.labels_as)),
                sources=sorted(set(request.sources)),
                users_are_claimed=request.users_are_claimed,
            )
            _write_keys(path, KeyFile([*held.keys, key], held.webhook_secrets))
    return CreatedKey(key_id, secret)


def revoke_key(path: Path, key_id: str, now: datetime) -> Key | WebhookSecret:
    """Revoke a key for good; revoking twice changes nothing. Its record stays, without a webhook's secret.

    Raises:
        UnknownNameError: there is no such key.
    """
    moment = now.astimezone(UTC)
    with _lock_for_change(path):
        held = read_keys(path)
        records = {record.key_id: record for record in held.records}
        if key_id not in records:
            raise UnknownNameError("key id", key_id, records, "See `flywheel keys list`.")
        record = records[key_id]
        if record.revoked_at is not None:
            return record
        if isinstance(record, WebhookSecret):
            revoked: Key | WebhookSecret = msgspec.structs.replace(record, revoked_at=moment, secret="")
        else:
            revoked = msgspec.structs.replace(record, revoked_at=moment)
        changed = [revoked if each.key_id == key_id else each for each in held.records]
        _write_keys(
            path,
            KeyFile(
                [each for each in changed if isinstance(each, Key)],
                [each for each in changed if isinstance(each, WebhookSecret)],
            ),
        )
    return revoked


def read_keys(path: Path) -> KeyFile:
    """Read the file's records; none where there is no file.

    Raises:
        SettingsError: it cannot be read, others than its owner can read it, or it is not such a file.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return KeyFile()
    except OSError as error:
        raise SettingsError(f"cannot read the keys in {path}: {error.strerror}") from None
    with open(descriptor, "rb") as file:
        mode = os.fstat(descriptor).st_mode & 0o777
        if mode & 0o077:
            raise SettingsError(f"{path} has mode {mode:o}, so that others can read or change it: chmod 600 {path}")
        content = file.read()
    try:
        return msgspec.json.decode(content, type=KeyFile)
    except (msgspec.DecodeError, UnicodeDecodeError):
        # The library's message may quote the file.
        raise SettingsError(
            f"{path} is not a file of keys: restore it, or remove it and create new keys with `flywheel keys create`"
        ) from None


class KeyStore:
    """Gives the current keys. It reads the file again when it has changed; used from one event loop."""

    def __init__(self, path: Path, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Read the file.

        Raises:
            SettingsError: see `read_keys`.
        """
        self._path = path
        self._monotonic = monotonic
        self._next_look = monotonic() + _RELOAD_S
        self._state = _read_state(path)
        self._use(read_keys(path))

    @property
    def content(self) -> KeyFile:
        """Return every record."""
        self._refresh()
        return self._content

    def find(self, presented: str) -> Key | None:
        """Return the active key with this secret; None for every other text. It costs one hash at most."""
        self._refresh()
        match = _KEY.fullmatch(presented)
        key = self._active.get(match[1]) if match else None
        if key is None or not hmac.compare_digest(_hash_secret(presented), key.sha256):
            return None
        return key

    def list_webhook_secrets(self, application: str) -> list[WebhookSecret]:
        """List the active secrets that may have signed a webhook for this application."""
        self._refresh()
        return self._webhooks.get(application, [])

    def list_user_secrets(self, application: str) -> tuple[bytes, ...]:
        """List the HMAC keys that may have signed a user token for this application."""
        self._refresh()
        return self._user_secrets.get(application, ())

    def list_origins(self, application: str) -> frozenset[str]:
        """List the origins of the pages that may use browser keys of this application."""
        self._refresh()
        return self._origins.get(application, frozenset()) | self._origins.get(EVERY_APPLICATION, frozenset())

    def _refresh(self) -> None:
        now = self._monotonic()
        if now < self._next_look:
            return
        self._next_look = now + _RELOAD_S
        state = _read_state(self._path)
        if state == self._state:
            return
        try:
            if state is None:
                raise SettingsError(f"{self._path} is gone: restore it, or stop the service")
            self._use(read_keys(self._path))
        except SettingsError as error:
            # A mistake in the file must not refuse every sender: that would lose events. The last keys were good.
            log.error("the keys stay as they were: %s", error)
        self._state = state

    def _use(self, content: KeyFile) -> None:
        self._content = content
        self._active = {key.key_id: key for key in content.keys if key.revoked_at is None}
        self._webhooks: dict[str, list[WebhookSecret]] = {}
        for webhook in content.webhook_secrets:
            if webhook.revoked_at is None:
                self._webhooks.setdefault(webhook.application, []).append(webhook)
        self._user_secrets = {
            application: tuple(decode_secret(each.secret) for each in secrets if each.attests_users)
            for application, secrets in self._webhooks.items()
        }
        self._origins: dict[str, frozenset[str]] = {}
        for key in self._active.values():
            known = self._origins.get(key.application, frozenset())
            self._origins[key.application] = known.union(key.origins)


def decode_secret(secret: str) -> bytes:
    """Decode the HMAC key from a `whsec_…` text."""
    return b64decode(secret.removeprefix(WEBHOOK_PREFIX))


def _check_request(request: KeyRequest) -> None:
    if not request.scopes:
        raise SettingsError(f"a key needs a scope; valid: {', '.join(Scope)}")
    if request.events_per_s is not None and request.events_per_s <= 0:
        raise SettingsError(f"the rate is {request.events_per_s} events/s; valid: more than 0")
    if request.is_webhook and (request.origins or set(request.scopes) != {Scope.WRITE}):
        raise SettingsError("a webhook secret has the scope write and no origins: another server signs with it")
    if request.is_webhook and request.application == EVERY_APPLICATION:
        raise SettingsError("a webhook secret belongs to one application; name it")
    if request.origins and set(request.scopes) != {Scope.WRITE}:
        raise SettingsError("everybody can read a browser key in the page: its only scope can be write")
    if request.labels_as and (request.origins or Scope.WRITE not in request.scopes):
        raise SettingsError("only a key that can write and that no page shows can label as a trusted source")
    if request.users_are_claimed and request.origins:
        raise SettingsError("a browser key never vouches for users: leave the option away; pages send signed tokens")
    for origin in request.origins:
        if not _is_origin(origin):
            raise SettingsError(
                f"origin is {origin[:200]!r}; valid: scheme and host as a browser sends them, without a path, for "
                "instance https://app.example.com or http://localhost:3000"
            )


def _is_origin(text: str) -> bool:
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        return False
    return parts.scheme in ("https", "http") and bool(parts.hostname) and text == f"{parts.scheme}://{parts.netloc}"


def _is_same_holder(record: Key | WebhookSecret, request: KeyRequest) -> bool:
    return (
        isinstance(record, WebhookSecret) == request.is_webhook
        and record.application == request.application
        and record.holder == request.holder
    )


def _hash_secret(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _read_state(path: Path) -> tuple[int, int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino, found.st_mode


def _lock_for_change(path: Path) -> FileLock:
    """Lock the file, so that two commands at once do not lose each other's key."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path.with_name(f"{path.name}.lock"), timeout=10)


def _write_keys(path: Path, content: KeyFile) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)  # never readable by others
    with open(descriptor, "wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n")
        file.flush()
        os.fsync(descriptor)
    os.replace(temporary, path)
    sync_folder(path.parent)
