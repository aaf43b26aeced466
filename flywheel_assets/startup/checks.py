"""Checks what a start needs besides capture: Dagster's instance and ports, disk, clocks, catalog and object store.

A round trip writes one small file or object and deletes it; nothing else is changed, and nothing is made that is not
there yet.
"""

import re
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from flywheel_assets.capture.doctor import Finding, Verdict
from flywheel_assets.discovery import find_applications
from flywheel_assets.errors import FlywheelError, SettingsError
from flywheel_assets.settings import Settings
from flywheel_assets.stores import Stores

LEAST_FREE_BYTES = 2**30
_SKEW_LOOK_S = 5.0
_SKEW_BROKEN_S = 300.0
"""Signatures of S3 are refused at fifteen minutes; days close fifteen minutes after midnight."""


def check_workspace(workspace: Path) -> None:
    """Refuse a workspace.yaml without a code location for an application that capture takes events for.

    It is not added silently: next to a location that serves it under another name every sensor would run twice.

    Raises:
        SettingsError: an application has none.
    """
    lines = [line.partition("#")[0] for line in workspace.read_text().splitlines()]
    for name, place in find_applications().items():
        module = re.compile(rf"[\s\"']{re.escape(place.module)}(\.definitions)?[\s\"']*$")
        location = re.compile(rf"location_name:\s*[\"']?{re.escape(name)}[\"']?\s*$")
        if not any(module.search(line) or location.search(line) for line in lines):
            raise SettingsError(
                f"{workspace.absolute()} has no code location for application {name!r} ({place.module}, "
                f"{place.origin}); add one with module_name: {place.module} (or {place.module}.definitions, where "
                f"`defs` is there) and location_name: {name}"
            )


def check_places(stores: Stores, applications: Iterable[str], ports: Iterable[tuple[str, int]]) -> list[Finding]:
    """Run every check; an error of one is its finding.

    Args:
        stores: the places by the settings.
        applications: names of those that can be loaded.
        ports: on loopback, by the name of the service that listens there.
    """
    where = stores.where
    checks: list[tuple[str, Callable[[], list[Finding]]]] = [
        ("dagster", lambda: check_instance(where.resolve_dagster_home())),
        ("ports", lambda: [check_port(name, port) for name, port in ports]),
        ("disk", lambda: [check_disk(where)]),
        *((f"catalog of {name}", lambda name=name: [check_catalog(stores, name)]) for name in applications),
        ("object store", lambda: check_object_stores(stores)),
    ]
    findings = []
    for subject, check in checks:
        try:
            findings += check()
        except FlywheelError as error:
            findings.append(Finding(subject, Verdict.BROKEN, str(error)))
    return findings


def check_instance(dagster_home: Path) -> list[Finding]:
    """Open Dagster's instance, and say whether its daemon runs."""
    subject = "dagster"
    if not (dagster_home / "dagster.yaml").exists():
        if Path("dagster.yaml").exists():
            return [Finding(subject, Verdict.FINE, f"{dagster_home} is made at the first start")]
        remedy = "run from the project's folder, where dagster.yaml is"
        return [Finding(subject, Verdict.LOOK, f"{dagster_home} has no dagster.yaml, and none is here", remedy)]
    from flywheel_assets.defs.running import open_instance

    try:
        with open_instance(dagster_home) as instance:
            runs = instance.get_runs_count()
            beats = {kind: each.healthy for kind, each in instance.get_daemon_statuses().items() if each.required}
    except Exception as error:
        problem = f"the instance in {dagster_home} cannot be opened: {type(error).__name__}"
        return [Finding(subject, Verdict.BROKEN, problem, "mend its dagster.yaml, or set DAGSTER_HOME")]
    opened = f"the instance in {dagster_home} holds {runs:,} runs"
    silent = sorted(kind for kind, healthy in beats.items() if not healthy)
    if silent:
        which = "any of its daemons" if len(silent) == len(beats) else ", ".join(silent)
        problem = f"{opened}; no sign of life of {which}: schedules and sensors stand still"
        return [Finding(subject, Verdict.LOOK, problem, "start `flywheel dev`, or `dagster-daemon run`")]
    return [Finding(subject, Verdict.FINE, f"{opened}; its daemon runs")]


def check_port(name: str, port: int) -> Finding:
    """Say whether a service could listen on a port of loopback, or does."""
    subject = f"port of {name}"
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            sentence = f"something listens on 127.0.0.1:{port} already: {name}?"
            option = "--webserver-port" if name == "dagster" else "--mlflow-port"
            return Finding(subject, Verdict.LOOK, sentence, f"if it is not: `flywheel dev {option} {port + 1}`")
    return Finding(subject, Verdict.FINE, f"127.0.0.1:{port} is free")


def check_disk(where: Settings) -> Finding:
    """Say how much is free for the home, and whether the disk's clock is this machine's."""
    home = where.resolve_home()
    folder = next(each for each in (home, *home.parents) if each.exists())
    probe = folder / f".doctor-{secrets.token_hex(4)}"
    try:
        before = time.time()
        probe.touch(mode=0o600)
        skew_s = probe.stat().st_mtime - before
    except OSError as error:
        return Finding("disk", Verdict.BROKEN, f"cannot write in {folder}: {error.strerror}", "set FLYWHEEL_HOME")
    finally:
        with suppress(OSError):
            probe.unlink()
    free = shutil.disk_usage(folder).free
    room = f"{free / 2**30:,.1f} GiB are free for {home}"
    if abs(skew_s) > _SKEW_LOOK_S:
        return _judge_skew("disk", skew_s, f"{room}; files there are stamped")
    if free < LEAST_FREE_BYTES:
        return Finding("disk", Verdict.LOOK, f"{room}; tables, versions and models need more", "free some space")
    return Finding("disk", Verdict.FINE, f"{room}, and its clock is this machine's")


def check_catalog(stores: Stores, application: str) -> Finding:
    """Read the catalog, lock it for a write that is taken back, and compare its clock where it has one."""
    subject, lake = f"catalog of {application}", stores.lake(application)
    if not lake.is_begun:
        return Finding(subject, Verdict.FINE, "there is none yet: the first run makes it")
    from sqlalchemy import create_engine, text
    from sqlalchemy.exc import SQLAlchemyError

    started = time.monotonic()
    engine = create_engine(lake.catalog_uri)
    try:
        lake.verify_home()
        tables = len(lake.catalog.list_tables(application))
        with engine.connect() as connection:
            if engine.dialect.name == "sqlite":
                connection.exec_driver_sql("BEGIN IMMEDIATE")
                skew_s = 0.0
            else:
                now: datetime = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
                skew_s = (now - datetime.now(UTC)).total_seconds()
            connection.rollback()
    except SQLAlchemyError as error:
        problem = f"it could not be read and locked for a write: {type(error).__name__}"
        return Finding(subject, Verdict.BROKEN, problem, "see who holds it, and whether its disk is full or read-only")
    finally:
        engine.dispose()
    if abs(skew_s) > _SKEW_LOOK_S:
        return _judge_skew(subject, skew_s, "its database's clock is")
    took_ms = 1000 * (time.monotonic() - started)
    return Finding(subject, Verdict.FINE, f"{tables} tables; it was read and locked for a write in {took_ms:.0f} ms")


def check_object_stores(stores: Stores) -> list[Finding]:
    """Put, get and delete one small object in each bucket that the settings name."""
    where = stores.where
    uris = {"landing": where.landing_s3, "warehouse": where.warehouse}
    chosen = {name: uri for name, uri in uris.items() if uri is not None and uri.startswith("s3:")}
    return [_check_bucket(name, uri, stores.s3_client()) for name, uri in chosen.items()]


def _check_bucket(name: str, uri: str, client: Any) -> Finding:
    subject = f"object store of {name}"
    place = urlsplit(uri)
    bucket, prefix = place.netloc, place.path.strip("/")
    key, body = f"{prefix}/.doctor-{secrets.token_hex(4)}".lstrip("/"), secrets.token_bytes(16)
    started = time.monotonic()
    try:
        client.put_object(Bucket=bucket, Key=key, Body=body)
        answer = client.get_object(Bucket=bucket, Key=key)
        found = answer["Body"].read()
        client.delete_object(Bucket=bucket, Key=key)
    except Exception as error:
        problem = f"{uri} did not take, give and delete an object: {type(error).__name__}"
        return Finding(subject, Verdict.BROKEN, problem, "check keys, region, bucket and FLYWHEEL_S3_ENDPOINT")
    if found != body:
        return Finding(subject, Verdict.BROKEN, f"{uri} gave another object than was put")
    stamped = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    skew_s = 0.0 if stamped is None else (parsedate_to_datetime(stamped) - datetime.now(UTC)).total_seconds()
    if abs(skew_s) > _SKEW_LOOK_S:
        return _judge_skew(subject, skew_s, f"the clock of {uri} is")
    return Finding(
        subject, Verdict.FINE, f"{uri} took, gave and deleted an object in {time.monotonic() - started:.1f} s"
    )


def _judge_skew(subject: str, skew_s: float, what: str) -> Finding:
    """Judge a clock that differs by more than `_SKEW_LOOK_S`."""
    verdict = Verdict.BROKEN if abs(skew_s) > _SKEW_BROKEN_S else Verdict.LOOK
    way = "ahead of" if skew_s > 0 else "behind"
    remedy = "run NTP on both machines: days close by these clocks"
    return Finding(subject, verdict, f"{what} {abs(skew_s):,.0f} s {way} this machine's time", remedy)
