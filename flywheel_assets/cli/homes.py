"""Commands over a home as a whole: backup, restore, move, adopt (docs/disaster_recovery.md), upgrade."""

import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer
from rich.table import Table

from flywheel_assets import __version__
from flywheel_assets.cli.terminal import Yes, app, console, find_applications, load_application, open_stores
from flywheel_assets.errors import BackupError

if TYPE_CHECKING:
    from flywheel_assets.lake.tables.lake import Lake
    from flywheel_assets.lake.upkeep.backup.manifest import Part
    from flywheel_assets.lake.upkeep.backup.restoring import Target
    from flywheel_assets.lake.upkeep.backup.taking import Source
    from flywheel_assets.lake.upkeep.relocation import Registration
    from flywheel_assets.settings import Settings
    from flywheel_assets.stores import Stores


@app.command()
def backup(
    to: Annotated[str, typer.Argument(help="A folder or s3://BUCKET/PREFIX, for this home alone.")],
    keep: Annotated[int, typer.Option(min=1, help="How many backups stay there, this one included.")] = 14,
    with_keys: Annotated[
        bool, typer.Option("--with-keys", help="Copy erasure.key and capture_keys.json, too; they are secrets.")
    ] = False,
) -> None:
    """Back up the whole home while everything runs. Only contents that the place lacks are copied.

    Backups from before an erasure that has ended by now are deleted, so that no person comes back out of one.
    """
    from flywheel_assets.lake.upkeep.backup.place import BackupPlace
    from flywheel_assets.lake.upkeep.backup.taking import take_backup

    stores = open_stores()
    source = build_backup_source(stores, with_keys=with_keys)
    place = BackupPlace.open(to, source.lakes[0].storage)
    with console.status("copying"):
        made = take_backup(source, place, now=datetime.now(UTC), keep=keep, s3_client=stores.s3_client)
    size = sum(file.bytes for file in made.manifest.files)
    sentences = [
        f"backup {made.manifest.number} in {place.uri} is complete: {len(made.manifest.files):,} files, {size:,} bytes",
        f"copied {made.copied_files:,} contents, {made.copied_bytes:,} bytes, in {made.seconds:.1f} s; daily steps, "
        f"cuts and erasures waited {made.locked_seconds:.1f} s",
        *(f"not in it: {each}" for each in made.manifest.left_out),
    ]
    if made.dropped:
        sentences.append(f"{len(made.dropped)} older backups were deleted: --keep {keep}")
    if made.dropped_for_erasures:
        sentences.append(
            f"{len(made.dropped_for_erasures)} older backups were deleted, since people have been erased after them"
        )
    for sentence in [*sentences, *([made.problem] if made.problem else [])]:
        console.print(sentence, highlight=False, soft_wrap=True)


@app.command()
def restore(
    source: Annotated[str, typer.Argument(metavar="FROM", help="The place of `flywheel backup`.")],
    at: Annotated[int | None, typer.Option(help="The backup's number. Default: the newest.")] = None,
    to: Annotated[
        Path | None,
        typer.Option(help="The new home's folder, for all of its parts. Default: the places that the settings name."),
    ] = None,
    copy: Annotated[
        bool, typer.Option("--copy", help="Give it an id of its own at the original's places, too: on another machine.")
    ] = False,
) -> None:
    """Restore a backup to an empty place, verify it, and say so. The exit code is 1 where something differs.

    At the original's places the home keeps its id; anywhere else it gets a new one. Interrupted, give it again.
    """
    from flywheel_assets.lake.upkeep.backup.place import BackupPlace
    from flywheel_assets.lake.upkeep.backup.restoring import choose_backup, restore_backup
    from flywheel_assets.settings import isolate_settings
    from flywheel_assets.stores import Stores

    given = open_stores()
    endpoint = given.where.s3_endpoint
    stores = given if to is None else Stores(isolate_settings(to).model_copy(update={"s3_endpoint": endpoint}))
    place = BackupPlace.open(source, {"s3.endpoint": endpoint} if endpoint else {})
    manifest = choose_backup(place, at)
    target = build_restore_target(stores, dagster_home=None if to is None else to.expanduser().resolve() / "dagster")
    with console.status(f"restoring backup {manifest.number} of {manifest.made_at:%Y-%m-%d %H:%M} UTC"):
        done = restore_backup(place, manifest, target, is_copy=copy)
    sentences = [
        f"{done.copied_files:,} files, {done.copied_bytes:,} bytes copied; every file is what the backup says",
        *(f"not in the backup: {each}" for each in manifest.left_out),
        *([f"{done.kept_landing} has this home's events already, and was left as it is"] if done.kept_landing else []),
        f"people who were erased after {manifest.made_at:%Y-%m-%d %H:%M} UTC are in it: give those erasures again",
    ]
    for sentence in sentences:
        console.print(sentence, highlight=False, soft_wrap=True)
    kind = "a new home" if done.is_new_id else "the home"
    if done.differences:
        for difference in done.differences[:10]:
            console.print(difference, highlight=False, soft_wrap=True, style="red")
        console.print(
            f"{target.home} is {kind} {done.home_id}; {len(done.differences)} differences were backed up, too"
        )
        raise typer.Exit(1)
    verified = ", ".join(name for name in manifest.applications if name in target.tables)
    console.print(
        f"{target.home} is {kind} {done.home_id}, verified ({verified or 'no application'}) and ready", soft_wrap=True
    )


@app.command()
def move(yes: Yes = False) -> None:
    """Make a home that was moved or copied here a home of its own.

    Stop what runs on it first. The tables' metadata is written again for this place; data files stay as they are, and
    the original is not touched. The home gets a new id.
    """
    from flywheel_assets.lake.upkeep.relocation import plan_move

    _register(plan_move, secrets.token_hex(8), is_done=yes)


@app.command()
def adopt(yes: Yes = False) -> None:
    """Register the warehouse's tables after the catalog was lost or replaced by an older copy.

    Each table comes back as its newest metadata in the warehouse says, with all snapshots and tags. Stop what runs on
    the home first.
    """
    from flywheel_assets.lake.upkeep.relocation import plan_adoption

    _register(plan_adoption, None, is_done=yes)


@app.command()
def upgrade(yes: Yes = False) -> None:
    """Bring the tables of every application to the schema of this release.

    A daily step does this for its own table when it needs it. Run it once after installing a release, on one host.
    Older releases refuse the home from then on where they would misread it.
    """
    from flywheel_assets.lake.tables.specs import list_tables
    from flywheel_assets.lake.upkeep.upgrade import is_home_marked, mark_home, plan_upgrade, upgrade_tables

    stores = open_stores()
    lakes = {name: stores.lake(name) for name in find_applications()}
    begun = {name: lake for name, lake in lakes.items() if lake.is_begun}
    planned = {name: plan_upgrade(lake, list_tables(load_application(name).tables)) for name, lake in begun.items()}
    table = Table("table", "schema", "new columns")
    for name, found in planned.items():
        for each in found:
            versions = f"{each.version or 'none'} → {each.spec.schema_version}"
            table.add_row(f"{name}.{each.spec.name}", versions, ", ".join(each.new_columns) or "none")
    unmarked = [lake for lake in begun.values() if not is_home_marked(lake)]
    if not any(planned.values()) and not unmarked:
        console.print(f"nothing to do: {stores.where.resolve_home()} is as release {__version__} makes it")
        return
    console.print(table)
    if not yes:
        console.print(
            f"would upgrade these tables, and name release {__version__} in the home's markers; rows stay as they "
            "are. Run `flywheel backup` first, then repeat the command with --yes.",
            soft_wrap=True,
        )
        return
    for name, lake in begun.items():
        upgrade_tables(lake, planned[name])
        mark_home(lake)
    console.print(f"{stores.where.resolve_home()} is as release {__version__} makes it", soft_wrap=True)


def _register(plan: "Callable[[Lake], list[Registration]]", home_id: str | None, *, is_done: bool) -> None:
    from flywheel_assets.lake.upkeep.relocation import list_namespaces, register_tables

    stores = open_stores()
    first = stores.lake(next(iter(find_applications())))
    home_id = home_id or first.home.find_id() or secrets.token_hex(8)
    lakes = [stores.lake(name) for name in list_namespaces(first)]
    planned = [(lake, plan(lake)) for lake in lakes]
    table = Table("table", "rows", "snapshots", "from", "the catalog has")
    for lake, each in ((lake, each) for lake, found in planned for each in found):
        name = f"{lake.application}.{each.name}"
        table.add_row(name, f"{each.rows:,}", str(each.snapshots), each.metadata, each.replaces or "nothing")
    console.print(table)
    place = stores.where.resolve_home()
    if not is_done:
        console.print(
            f"would register these tables for {place}, and give its parts one id. Stop capture, the daemon and every "
            "run on this home, then repeat the command with --yes.",
            soft_wrap=True,
        )
        return
    for lake, found in planned:
        register_tables(lake, found, home_id=home_id)
    stores.landing().claim(home_id)
    number = sum(len(found) for _, found in planned)
    console.print(f"{number} tables registered; {place} is the home {home_id}", soft_wrap=True)


def build_backup_source(stores: "Stores", *, with_keys: bool = False) -> "Source":
    """List the parts of a home by the settings of this machine.

    Raises:
        BackupError: there is no home.
    """
    from flywheel_assets.lake.landing.s3 import ObjectLanding
    from flywheel_assets.lake.upkeep.backup.taking import Source
    from flywheel_assets.lake.upkeep.relocation import list_namespaces

    where = stores.where
    home = where.resolve_home()
    if not home.is_dir():
        raise BackupError(f"there is no home in {home}: set FLYWHEEL_HOME to the folder that is to be backed up")
    first = stores.lake(next(iter(find_applications())))
    lakes = [stores.lake(name) for name in list_namespaces(first)] or [first]
    secrets_of_home = _list_secrets(where)
    landing = stores.landing()
    return Source(
        lakes=lakes,
        parts=[*_list_parts(where, where.resolve_dagster_home()), *(secrets_of_home if with_keys else ())],
        versions=where.resolve_versions_dir(),
        landing=landing if isinstance(landing, ObjectLanding) else None,
        left_out=_explain_left_out(where, with_keys=with_keys),
        excluded=[] if with_keys else [part.path for part in secrets_of_home],
    )


def build_restore_target(stores: "Stores", *, dagster_home: Path | None) -> "Target":
    """List the places that a home is restored to, by settings; `dagster_home` where it is not theirs."""
    from flywheel_assets.lake.upkeep.backup.restoring import Target

    where = stores.where
    return Target(
        home=where.resolve_home(),
        parts=[*_list_parts(where, dagster_home or where.resolve_dagster_home()), *_list_secrets(where)],
        open_lake=stores.lake,
        open_versions=stores.versions,
        tables={name: load_application(name).tables for name in find_applications()},
        landing=stores.landing(),
    )


def _list_parts(where: "Settings", dagster_home: Path) -> "list[Part]":
    from flywheel_assets.lake.upkeep.backup.manifest import Part

    home = where.resolve_home()
    parts = [
        Part("home", home),
        Part("landing", where.resolve_landing_dir().absolute(), is_settled=True),
        Part("versions", where.resolve_versions_dir().absolute(), is_settled=True),
        Part("models", where.resolve_models_dir().absolute(), is_settled=True),
        Part("mlartifacts", home / "mlartifacts", is_settled=True),
        Part("dagster", dagster_home),
    ]
    tracking = _find_mlflow_file(where)
    return [*parts, Part("mlflow", tracking)] if tracking is not None else parts


def _list_secrets(where: "Settings") -> "list[Part]":
    from flywheel_assets.lake.upkeep.backup.manifest import Part

    return [
        Part("erasure_key", where.resolve_home() / "erasure.key"),
        Part("capture_keys", where.resolve_capture_keys_file().absolute()),
    ]


def _find_mlflow_file(where: "Settings") -> Path | None:
    uri = where.resolve_mlflow_uri()
    return Path(uri.removeprefix("sqlite:///").split("?")[0]) if uri.startswith("sqlite:///") else None


def _explain_left_out(where: "Settings", *, with_keys: bool) -> list[str]:
    """Explain what belongs to the home and is not backed up by it, and who has to."""
    found = []
    if where.erasure_key is not None:
        found.append("the secret in FLYWHEEL_ERASURE_KEY: keep it where secrets are kept")
    if not with_keys:
        there = [part.path for part in _list_secrets(where) if part.path.exists()]
        found += [f"{path}: a secret; keep a copy elsewhere, or use --with-keys" for path in there]
    if where.landing_s3 is not None:
        found.append("what other capture machines have not shipped to the landing zone yet: it stays on their disks")
    if _find_mlflow_file(where) is None:
        address = urlsplit(where.resolve_mlflow_uri())  # it may hold a password
        tool = "pg_dump" if address.scheme.startswith("postgres") else "the tools of its server"
        found.append(f"MLflow's store on {address.hostname}: use {tool} just before `flywheel backup`")
    settings = where.resolve_dagster_home() / "dagster.yaml"
    if settings.exists() and "postgres" in settings.read_text():
        found.append(f"Dagster's storage, a Postgres by {settings}: use pg_dump")
    return found
