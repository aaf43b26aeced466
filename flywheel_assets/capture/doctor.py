"""Checks whether capture could work here, without starting it and without lasting changes."""

import os
import secrets
import shutil
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path

from flywheel_assets.capture.auth.access import is_loopback
from flywheel_assets.capture.auth.keys import EVERY_APPLICATION, MOST_ACTIVE, Key, WebhookSecret, read_keys
from flywheel_assets.capture.brokers.broker import read_broker_address
from flywheel_assets.capture.clock import explain_wrong_clock
from flywheel_assets.capture.log.segment_file import find_open_segments
from flywheel_assets.capture.service import open_socket
from flywheel_assets.errors import SettingsError
from flywheel_assets.settings import Settings, explain_unwritable

_ROTATE_AFTER = timedelta(days=365)
_OLD_SEGMENT_S = 300.0


class Verdict(StrEnum):
    """Names the result of a check."""

    FINE = "fine"
    LOOK = "look"
    """It works, but a person should look at it."""
    BROKEN = "broken"
    """The service would not start, or could not do its work."""


@dataclass(frozen=True)
class Finding:
    """Holds the result of one check, and the remedy."""

    subject: str
    verdict: Verdict
    sentence: str
    remedy: str = ""


def examine_service(settings: Settings, now: datetime | None = None) -> list[Finding]:
    """Run every check, in the order in which the service would meet the problems."""
    moment = now or datetime.now(UTC)
    checks: list[tuple[str, Callable[[], list[Finding]]]] = [
        ("home", lambda: _check_home(settings)),
        ("clock", lambda: _check_clock(settings, moment)),
        ("keys", lambda: _check_keys(settings, moment)),
        ("address", lambda: [_check_address(settings)]),
        ("landing", lambda: _check_landing(settings)),
        ("privacy", lambda: [_check_privacy(settings)]),
        ("limits", lambda: _check_limits(settings)),
        ("queue", lambda: [_check_queue(settings)]),
    ]
    findings = []
    for subject, check in checks:
        try:
            findings += check()
        except SettingsError as error:
            findings.append(Finding(subject, Verdict.BROKEN, str(error)))
    return findings


def _check_home(settings: Settings) -> list[Finding]:
    problem = explain_unwritable(settings)
    return [] if problem is None else [Finding("home", Verdict.BROKEN, problem)]


def _check_clock(settings: Settings, now: datetime) -> list[Finding]:
    problem = explain_wrong_clock(settings.resolve_landing_dir(), now)
    verdict = Verdict.LOOK if settings.capture_any_clock else Verdict.BROKEN
    return [] if problem is None else [Finding("clock", verdict, problem)]


def _check_keys(settings: Settings, now: datetime) -> list[Finding]:
    path = settings.resolve_capture_keys_file()
    records = read_keys(path).records
    active = [record for record in records if record.revoked_at is None]
    findings = []
    if not records and not is_loopback(settings.capture_host):
        findings.append(
            Finding(
                "keys",
                Verdict.BROKEN,
                f"there is no key in {path}, and FLYWHEEL_CAPTURE_HOST {settings.capture_host} may be reached from "
                "other machines: the service refuses to start",
                "create a key with `flywheel keys create`, or listen on 127.0.0.1",
            )
        )
    elif not records:
        findings.append(Finding("keys", Verdict.LOOK, "there is none: everybody on this machine may send"))
    elif not active:
        findings.append(
            Finding("keys", Verdict.BROKEN, "every key is revoked: no sender is accepted", "`flywheel keys create`")
        )
    else:
        findings.append(Finding("keys", Verdict.FINE, f"{len(active)} active, {len(records) - len(active)} revoked"))
    for record in active:
        age = now - record.created_at
        if age > _ROTATE_AFTER and not (isinstance(record, Key) and record.is_for_browsers):
            findings.append(
                Finding(
                    "keys",
                    Verdict.LOOK,
                    f"{record.key_id} of {record.holder!r} is {age.days} days old",
                    f"create a second one for the same holder (up to {MOST_ACTIVE} are active at once), hand it over, "
                    f"then `flywheel keys revoke {record.key_id}`",
                )
            )
    return [*findings, *_find_unsigned_pages(active)]


def _find_unsigned_pages(active: Sequence[Key | WebhookSecret]) -> list[Finding]:
    """Find the applications whose pages can send no user token: nothing vouches for the names that they send."""
    pages = {record.application for record in active if isinstance(record, Key) and record.is_for_browsers}
    signed = {record.application for record in active if isinstance(record, WebhookSecret) and record.attests_users}
    return [
        Finding(
            "keys",
            Verdict.LOOK,
            f"no user of the pages of {application} is signed: what they send counts as one crowd where others are",
            f"`flywheel keys create {application} --holder users --webhook`, and sign user ids: docs/clients.md",
        )
        for application in sorted(pages - signed - {EVERY_APPLICATION})
    ]


def _check_address(settings: Settings) -> Finding:
    host, port = settings.capture_host, settings.capture_port
    try:
        open_socket(host, port).close()
    except SettingsError as error:
        if _is_answered(host, port):
            return Finding("address", Verdict.FINE, f"something listens on {host}:{port} already: capture?")
        return Finding("address", Verdict.BROKEN, str(error))
    if is_loopback(host):
        return Finding("address", Verdict.FINE, f"{host}:{port} is free, and only this machine reaches it")
    return Finding(
        "address",
        Verdict.LOOK,
        f"{host}:{port} is free, and other machines may reach it without encryption",
        "put a proxy with TLS in front, and let only the proxy reach this port",
    )


def _is_answered(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=2).close()
    except OSError:
        return False
    return True


def _check_landing(settings: Settings) -> list[Finding]:
    root = settings.resolve_landing_dir()
    existing = next(folder for folder in (root, *root.parents) if folder.exists())
    problem = _find_write_problem(existing)
    if problem is not None:
        return [
            Finding("landing", Verdict.BROKEN, f"cannot write in {existing}: {problem}", "set FLYWHEEL_LANDING_DIR")
        ]
    usage = shutil.disk_usage(existing)
    least = settings.capture_min_free_bytes
    room = f"{usage.free / 2**30:,.1f} GiB are free for {root}"
    findings = []
    if usage.free < least:
        findings.append(
            Finding(
                "landing",
                Verdict.BROKEN,
                f"{room}: below the reserve of {least / 2**20:,.0f} MiB, every request is answered with 503",
                "free some space, or lower FLYWHEEL_CAPTURE_MIN_FREE_BYTES",
            )
        )
    elif usage.free < 10 * max(least, settings.capture_segment_bytes):
        findings.append(Finding("landing", Verdict.LOOK, f"{room}; that will soon be used up"))
    else:
        findings.append(Finding("landing", Verdict.FINE, room))
    old = [path for _, path in find_open_segments(root) if _is_old(path)]
    if old:
        findings.append(
            Finding(
                "landing",
                Verdict.LOOK,
                f"{len(old)} open segments were not written to for {_OLD_SEGMENT_S:.0f} s (first: {old[0].name})",
                "a running capture process publishes those of dead writers within a minute: start one",
            )
        )
    return findings


def _check_privacy(settings: Settings) -> Finding:
    """Say whether others on this machine can read users' texts; what lies in a closed folder is closed."""
    closed = settings.closed_bits
    open_places: list[Path] = []
    for place in settings.list_local_places():
        around = [folder for folder in (place, *place.parents) if folder.exists()]
        if place.exists() and all(folder.stat().st_mode & closed for folder in around):
            open_places.append(place)
    if not open_places:
        return Finding("privacy", Verdict.FINE, "only the flywheel's user can read users' texts here")
    outer = [place for place in open_places if not any(other in place.parents for other in open_places)]
    change = "g-w,o-rwx" if settings.group_reads else "go-rwx"
    modes = ", ".join(f"{place} (mode {place.stat().st_mode & 0o777:o})" for place in outer)
    return Finding(
        "privacy",
        Verdict.LOOK,
        f"others on this machine can read users' texts in {modes}",
        "`" + "; ".join(f"chmod -R {change} {place}" for place in outer) + "`",
    )


def _is_old(path: Path) -> bool:
    try:
        return datetime.now(UTC).timestamp() - path.stat().st_mtime > _OLD_SEGMENT_S
    except FileNotFoundError:
        return False


def _find_write_problem(folder: Path) -> str | None:
    # The check writes a file: permissions say little about read-only and full disks.
    probe = folder / f".doctor-{secrets.token_hex(4)}"
    try:
        descriptor = os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except OSError as error:
        return error.strerror or type(error).__name__
    try:
        os.write(descriptor, b"x")
        os.fsync(descriptor)
    except OSError as error:
        return error.strerror or type(error).__name__
    finally:
        os.close(descriptor)
        probe.unlink()
    return None


def _check_limits(settings: Settings) -> list[Finding]:
    event, request, together = (
        settings.capture_event_bytes,
        settings.capture_request_bytes,
        settings.capture_in_progress_bytes,
    )
    findings = []
    if event > request:
        findings.append(
            Finding(
                "limits",
                Verdict.LOOK,
                f"an event may have {event} bytes, but its request only {request}",
                "raise FLYWHEEL_CAPTURE_REQUEST_BYTES, or lower FLYWHEEL_CAPTURE_EVENT_BYTES",
            )
        )
    if request > together:
        findings.append(
            Finding(
                "limits",
                Verdict.BROKEN,
                f"a request may have {request} bytes, but all in progress together only {together}: the largest are "
                "always answered with 503",
                "raise FLYWHEEL_CAPTURE_IN_PROGRESS_BYTES, or lower FLYWHEEL_CAPTURE_REQUEST_BYTES",
            )
        )
    return findings or [Finding("limits", Verdict.FINE, "they fit each other")]


def _check_queue(settings: Settings) -> Finding:
    address = read_broker_address(settings)
    if address is None:
        return Finding("queue", Verdict.FINE, "events go to the landing zone at once")
    return Finding(
        "queue", Verdict.FINE, f"events go to {address.kind} first; `flywheel drain` must run to bring them to landing"
    )
