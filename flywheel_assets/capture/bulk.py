"""Takes records of any format that is known over HTTP: exports of other systems, and what their webhooks send.

The way of one body: it is read and unpacked within the bounds of every request → `importing.files` finds its shape and
its format and turns each record into rows, in a thread of its own → the rows become durable → 202 with counts, and the
refused records grouped by cause. Where more records come than one request may bring, nothing is taken.

With `history=true` rows land on the days on which they happened, by an audited decision, for which a key needs the
scope `import`. They are then imports like those of a file, which count for less than what people do today.
"""

import asyncio
import hashlib
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial

from starlette.requests import Request
from starlette.responses import Response

from flywheel_assets.capture.auth.access import Caller
from flywheel_assets.capture.auth.keys import Scope
from flywheel_assets.capture.endpoints import LONGEST_REASON
from flywheel_assets.capture.events.texts import LandedRow
from flywheel_assets.capture.http.answers import (
    LandedHistory,
    RecordsAnswer,
    Refusal,
    RefusedError,
    RefusedRecords,
    build_json_response,
)
from flywheel_assets.capture.http.bodies import Share
from flywheel_assets.capture.importing.files import ImportPlan, import_files
from flywheel_assets.capture.importing.report import ImportReport
from flywheel_assets.capture.importing.sinks import RowSink
from flywheel_assets.capture.intake import Intake
from flywheel_assets.capture.log.history import HistoryLog, Published
from flywheel_assets.errors import FlywheelError, UnknownNameError
from flywheel_assets.formats.catalog import AUTO
from flywheel_assets.formats.reading.entries import ReadingOptions
from flywheel_assets.formats.reading.sources import hold_bytes

log = logging.getLogger(__name__)

_ROWS_AT_ONCE = 8
_ROWS_OF_BODY = 3
"""Landed rows may have this many times the bytes that a body may have: an edit becomes two rows."""
_TRUTH = {"true": True, "1": True, "false": False, "0": False, "": False}


@dataclass(frozen=True)
class HistoryPlace:
    """Opens the place of history, and says afterwards that days have changed."""

    open: Callable[[str, str, str, str], HistoryLog]
    """Takes application, who, reason and the name of the source."""
    report: Callable[[str], None]
    """Takes the application whose days have changed."""


@dataclass(frozen=True)
class RecordsReceiver:
    """Serves the endpoint of records."""

    intake: Intake
    history: HistoryPlace | None = None
    """None: this service lands on the day of receipt only."""
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def answer_request(self, request: Request) -> Response:
        """Answer one request that brings records."""
        intake = self.intake
        application: str = request.path_params["application"]

        async def take_records() -> Response:
            is_history = _read_truth(request, "history")
            caller = intake.admit(request, Scope.IMPORT if is_history else Scope.WRITE)
            standing, share = intake.open_share(request, caller)
            with share:
                try:
                    intake.check_application(application)
                    if caller.is_page:
                        raise RefusedError(
                            Refusal.FORBIDDEN, "records come from servers; a web page sends /edits or /events"
                        )
                    _check_type(request)
                    reader = intake.admission.find_reader(standing)
                    body = await reader.read(request, share)
                    caller = intake.access.verify_body(caller, body)
                    return await self._take(request, caller, await reader.unpack(body, share), is_history, share)
                except RefusedError as refusal:
                    intake.charge_refused(caller, refusal, share)
                    raise

        return await intake.answer(request, "POST", take_records, RefusedError.build_response)

    async def _take(self, request: Request, caller: Caller, body: bytes, is_history: bool, share: Share) -> Response:
        intake = self.intake
        plan = ImportPlan(
            application=caller.application,
            contract=intake.applications[caller.application],
            format=request.query_params.get("format", AUTO)[:100],
            reading=ReadingOptions(longest_bytes=intake.limits.event_bytes, rows_at_once=_ROWS_AT_ONCE),
            limit=intake.limits.batch_events + 1,
            event_bytes=intake.limits.event_bytes,
            labels_as=caller.labels_as,
            sender=None if is_history else caller.sender,
            is_sent=not is_history,
        )
        published = None
        if is_history:
            report, published = await self._land_history(request, caller, body, plan)
        else:
            rows = _HeldRows(_ROWS_OF_BODY * intake.limits.request_bytes)
            read = partial(self._read, body, plan, rows)
            report = await intake.decode_measured(read, len(body), share)
            if rows.rows and not intake.access.is_repeat(caller):
                await intake.make_durable(caller, rows.rows)
        intake.telemetry.note_received(caller.application, report.records, len(body))
        intake.telemetry.note_refused_events(report.refused)
        intake.telemetry.note_accepted(caller.application, sum(report.events.values()), 0, 0)
        intake.access.charge(caller, max(report.records, share.cost))
        status = 400 if report.refused and not report.accepted else 202
        return build_json_response(status, _build_answer(report, caller.application, published))

    def _read(self, body: bytes, plan: ImportPlan, sink: RowSink) -> ImportReport:
        """Read every record of a body into a sink.

        Raises:
            RefusedError: the body as a whole cannot be taken.
        """
        name = hashlib.sha256(body).hexdigest()[:32]
        try:
            report = import_files([hold_bytes(name, body)], plan, sink, self.intake.clock)
        except UnknownNameError as error:
            raise RefusedError(Refusal.MALFORMED_BODY, str(error)) from None
        [file] = report.files
        if file.problem is not None:
            problem = file.problem.replace(name, "the body")
            raise RefusedError(Refusal.MALFORMED_BODY, f"{problem} (here: ?format=NAME in the address)")
        most = self.intake.limits.batch_events
        if report.records > most:
            raise RefusedError(Refusal.TOO_LARGE, f"more than {most} records in one request; valid: at most {most}")
        if not report.records:
            raise RefusedError(Refusal.MALFORMED_BODY, "the request holds no record")
        return report

    async def _land_history(
        self, request: Request, caller: Caller, body: bytes, plan: ImportPlan
    ) -> tuple[ImportReport, Published]:
        place = self.history
        if place is None:
            raise RefusedError(Refusal.MALFORMED_BODY, "this service takes no history; use `flywheel import --history`")
        reason = request.query_params.get("reason", "").strip()
        if not 1 <= len(reason) <= LONGEST_REASON:
            raise RefusedError(
                Refusal.MALFORMED_BODY,
                f"`reason` has {len(reason)} characters; valid: 1 to {LONGEST_REASON}: history changes closed days, "
                "and the reason is kept for audits",
            )
        who = caller.holder or "everybody on this machine"
        if caller.key_id is not None:
            who = f"{who} (key {caller.key_id})"
        if self._turn.locked():
            raise RefusedError(Refusal.OVERLOADED, "another request lands history; try again later", 30)
        async with self._turn:
            land = partial(self._publish, place, who, reason, body, plan)
            return await asyncio.to_thread(land)

    def _publish(
        self, place: HistoryPlace, who: str, reason: str, body: bytes, plan: ImportPlan
    ) -> tuple[ImportReport, Published]:
        try:
            with place.open(plan.application, who, reason, "http") as history:
                report = self._read(body, plan, _Unpublished(history))
                published = history.publish()
            if published.decision is not None:
                _report(place, plan.application)
        except FlywheelError as error:
            refusal = Refusal.NOT_DURABLE if error.is_transient else Refusal.MALFORMED_BODY
            raise RefusedError(refusal, str(error), 30) from None
        return report, published


def _report(place: HistoryPlace, application: str) -> None:
    try:
        place.report(application)
    except Exception:  # the rows are on their days, and the ledger knows what is stale: only the UI's mark is missing
        log.exception("the days of %s could not be reported as changed", application)


class _HeldRows:
    """Holds the rows of one request, up to a size."""

    def __init__(self, limit_bytes: int) -> None:
        self.rows: list[LandedRow] = []
        self._limit_bytes = limit_bytes
        self._left_bytes = limit_bytes

    def add(self, rows: Iterable[LandedRow]) -> None:
        """Take the rows of one event."""
        for row in rows:
            self._left_bytes -= len(row.line)
            if self._left_bytes < 0:
                raise RefusedError(
                    Refusal.TOO_LARGE, f"the records become more than {self._limit_bytes} bytes; send fewer at a time"
                )
            self.rows.append(row)

    def finish(self) -> None:
        """Do nothing: the request makes them durable when all are read."""


class _Unpublished:
    """Hands rows to history; nothing is published before all are read."""

    def __init__(self, history: HistoryLog) -> None:
        self._history = history

    def add(self, rows: Iterable[LandedRow]) -> None:
        """Take the rows of one event."""
        self._history.add(rows)

    def finish(self) -> None:
        """Do nothing: whether anything is published is decided when all are read."""


def _build_answer(report: ImportReport, application: str, published: Published | None) -> RecordsAnswer:
    [file] = report.files
    return RecordsAnswer(
        format=file.format,
        shape=file.shape,
        records=report.records,
        accepted=report.accepted,
        refused=report.refused,
        unused=report.unused,
        events=dict(report.events),
        causes=[RefusedRecords(each.problem, each.count, each.number) for each in report.causes],
        unmapped=[name[:100] for name in file.unread[:50]],
        history=None if published is None else _describe_history(published, application),
    )


def _describe_history(published: Published, application: str) -> LandedHistory:
    days = sorted({day for found in published.days.values() for day in found})
    reopened = sorted({day for found in published.reopened.values() for day in found})
    command = f"flywheel backfill {days[0]} {days[-1]} --application {application}" if days else None
    return LandedHistory(published.decision, days, reopened, published.known, command)


def _read_truth(request: Request, name: str) -> bool:
    given = request.query_params.get(name, "")
    if given not in _TRUTH:
        raise RefusedError(Refusal.MALFORMED_BODY, f"`{name}` is {given[:20]!r}; valid: true, false")
    return _TRUTH[given]


def _check_type(request: Request) -> None:
    """Refuse forms; every other body shows itself what it is, whatever its header says."""
    if request.headers.get("content-type", "").lower().startswith("multipart/"):
        url = str(request.url.replace(query=""))[:500]
        raise RefusedError(
            Refusal.CONTENT_TYPE,
            f"a form is not read here; send the file: curl {url} --data-binary @export.json",
        )
