"""Commands over the keys of the capture service, which allow to send, to review or to read metrics."""

from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Column, Table

from flywheel_assets.capture.auth import keys as capture_keys
from flywheel_assets.capture.auth.keys import EVERY_APPLICATION, Key, KeyRequest, Scope
from flywheel_assets.cli.terminal import app, console, find_applications, read_settings
from flywheel_assets.errors import UnknownNameError

keys = typer.Typer(no_args_is_help=True, help="Create, list and revoke keys of the capture service.")
app.add_typer(keys, name="keys")


@keys.command()
def create(
    application: Annotated[str, typer.Argument(help="The application, or '*' for all applications.")],
    holder: Annotated[str, typer.Option("--holder", help="The user of the key: a service, a web page or a person.")],
    scope: Annotated[
        list[Scope],
        typer.Option(
            "--scope",
            help="The permission. write: send events; review: the review pages; admin: /metrics; import: land history "
            "on past days.",
        ),
    ] = [Scope.WRITE],  # noqa: B006 (typer copies it)
    origin: Annotated[
        list[str],
        typer.Option("--origin", help="Make a browser key for pages of this origin; repeat the option for more."),
    ] = [],  # noqa: B006
    webhook: Annotated[
        bool, typer.Option("--webhook", help="Make a secret with which another server signs its webhooks.")
    ] = False,
    events_per_s: Annotated[
        float | None, typer.Option(help="The key's rate limit. Default: FLYWHEEL_CAPTURE_EVENTS_PER_S.")
    ] = None,
    labels_as: Annotated[
        list[str],
        typer.Option("--labels-as", help="A trusted labeling source that its labels may claim; repeat it for more."),
    ] = [],  # noqa: B006
    source: Annotated[
        list[str],
        typer.Option("--source", help="A source that its events may name, counted by itself: one for each tenant."),
    ] = [],  # noqa: B006
    users_are_claimed: Annotated[
        bool,
        typer.Option("--users-are-claimed", help="The server passes on user ids that it has not checked."),
    ] = False,
) -> None:
    """Create a key and print its secret this one time.

    A holder may have two active keys, for rotation.
    """
    known = [*find_applications(), EVERY_APPLICATION]
    if application not in known:
        raise UnknownNameError("application", application, known)
    path = read_settings().resolve_capture_keys_file()
    request = KeyRequest(
        application, holder, scope, origin, webhook, events_per_s, labels_as, source, users_are_claimed
    )
    created = capture_keys.create_key(path, request, datetime.now(UTC))
    console.print(created.secret, markup=False, highlight=False, soft_wrap=True)
    # This goes to standard error, so that `$(flywheel keys create …)` is the key and nothing else.
    note = "it is shown only now" if not origin else "everybody who sees the page can read it: it can only write"
    typer.echo(f"key {created.key_id} for {application}, held by {holder!r}; {note}", err=True)


@keys.command("list")
def list_() -> None:
    """List every key, without its secret."""
    content = capture_keys.read_keys(read_settings().resolve_capture_keys_file())
    table = Table(Column("key id", no_wrap=True), "application", "holder", "may", "from", "created", "revoked")
    for record in content.records:
        scopes, origins = (record.scopes, record.origins) if isinstance(record, Key) else ([Scope.WRITE], [])
        table.add_row(
            record.key_id,
            record.application,
            escape(record.holder),
            ", ".join(
                [
                    *scopes,
                    *(f"label as {escape(each)}" for each in record.labels_as),
                    *(f"send as {escape(each)}" for each in record.sources),
                    *(["vouch for users"] if record.attests_users and Scope.WRITE in scopes else []),
                ]
            ),
            ", ".join(origins) or ("servers" if isinstance(record, Key) else "signed webhooks"),
            f"{record.created_at:%Y-%m-%d}",
            f"{record.revoked_at:%Y-%m-%d}" if record.revoked_at else "",
        )
    console.print(table if table.row_count else "no keys: capture runs open, on loopback only")


@keys.command()
def revoke(key_id: Annotated[str, typer.Argument(help="The key's id; `flywheel keys list` lists them.")]) -> None:
    """Revoke a key for good; running services notice it within a second."""
    record = capture_keys.revoke_key(read_settings().resolve_capture_keys_file(), key_id, datetime.now(UTC))
    console.print(f"key {record.key_id} of {record.holder!r} for {record.application} is revoked", markup=False)
