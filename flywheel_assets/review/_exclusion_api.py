"""Serves exclusions as JSON, for programs: list, create, end; the same decisions as `flywheel exclude` makes.

    GET  /review/<application>/exclusions
    POST /review/<application>/exclusions             {"prediction": …, "reason": …, "who": …, "yes": true}
    POST /review/<application>/exclusions/<id>/end    {"reason": …, "who": …, "yes": true}

A key of the scope `review` comes as `Authorization: Bearer`; no cookie is read, so that no page of another site can
decide with a reviewer's browser. A browser that names the page it comes from must name a page of this service.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import date, datetime
from typing import TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from flywheel_assets.capture.auth.access import Access, Caller
from flywheel_assets.capture.auth.keys import Scope
from flywheel_assets.capture.clock import Clock
from flywheel_assets.capture.http.answers import Problem, RefusedError, build_json_response
from flywheel_assets.capture.http.bodies import BodyReader, MemoryBudget
from flywheel_assets.errors import FlywheelError, InvalidRuleError, UnknownNameError
from flywheel_assets.lake.versions import exclusions
from flywheel_assets.lake.versions.exclusions import DayOf, Exclusion, ExclusionRule
from flywheel_assets.records import IMPORT_PREFIX
from flywheel_assets.review.proxy import LONGEST_NAME
from flywheel_assets.review.queue import Reviewed
from flywheel_assets.review.sessions import PageRefusal, check_host, check_sent_from_here

_BODY_BYTES = 2**16
_BODIES_AT_ONCE_BYTES = 2**20
_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


class _Decision(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    who: str
    reason: str
    yes: bool = False
    """False: only count the rows."""

    def __post_init__(self) -> None:
        if not self.who.strip() or len(self.who) > LONGEST_NAME or not self.who.isprintable():
            raise ValueError(f"`who` is a name of 1 to {LONGEST_NAME} printable characters")
        if not self.reason.strip():
            raise ValueError("`reason` is kept for the audit and must not be empty")


class _NewExclusion(_Decision, kw_only=True, forbid_unknown_fields=True):
    """Holds the conditions of `flywheel exclude`, under the names of its options."""

    first_day: date | None = msgspec.field(name="from", default=None)
    last_day: date | None = msgspec.field(name="to", default=None)
    by: DayOf = DayOf.RECEIVED
    user: str | None = None
    model_version: str | None = None
    prediction: str | None = None
    thread: str | None = None
    event: str | None = None
    source: str | None = None
    file: str | None = msgspec.field(name="import", default=None)


class _Shown(msgspec.Struct, kw_only=True):
    id: str | None
    """None: nothing was decided."""
    what: str
    named: dict[str, str]
    """The ids of the rule, by column."""
    rows_by_day: dict[str, int] | None = None
    """The rows that this decision changes."""
    decided_at: datetime | None = None
    decided_by: str | None = None
    reason: str | None = None
    ended_at: datetime | None = None
    ended_by: str | None = None
    ended_reason: str | None = None


class _Listed(msgspec.Struct):
    exclusions: list[_Shown]


_Given = TypeVar("_Given", bound=_Decision)
Handler = Callable[[Request, Reviewed, Caller], Awaitable[Response]]


def build_exclusion_routes(access: Access, reviewed: Mapping[str, Reviewed], clock: Clock) -> list[BaseRoute]:
    """Build the routes of the exclusions of all reviewed applications."""
    api = _ExclusionApi(access, reviewed, clock)
    path = "/review/{application}/exclusions"
    return [
        Route(path, api.wrap(api.list_all), methods=["GET"]),
        Route(path, api.wrap(api.create), methods=["POST"]),
        Route(f"{path}/{{exclusion}}/end", api.wrap(api.end), methods=["POST"]),
    ]


class _ExclusionApi:
    """The handlers; one instance per service, used from its event loop."""

    def __init__(self, access: Access, reviewed: Mapping[str, Reviewed], clock: Clock) -> None:
        self._access = access
        self._reviewed = reviewed
        self._clock = clock
        self._reader = BodyReader(_BODY_BYTES)
        self._budget = MemoryBudget(_BODIES_AT_ONCE_BYTES)

    def wrap(self, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        """Wrap `handler`: the sender is checked first, and errors become JSON."""

        async def answer(request: Request) -> Response:
            try:
                check_host(self._access, request)
                if "origin" in request.headers or "sec-fetch-site" in request.headers:
                    check_sent_from_here(request)
                application: str = request.path_params["application"]
                caller = self._access.admit(request, application, Scope.REVIEW)
                if application not in self._reviewed:
                    raise UnknownNameError("application", application[:80], [])
                response = await handler(request, self._reviewed[application], caller)
            except PageRefusal as refusal:
                response = build_json_response(refusal.status, Problem(refusal.message))
            except RefusedError as refusal:
                response = refusal.build_response()
            except FlywheelError as error:
                status = 503 if error.is_transient else 404 if isinstance(error, UnknownNameError) else 400
                response = build_json_response(status, Problem(str(error)))
            for name, value in _HEADERS.items():
                response.headers.setdefault(name, value)
            return response

        return answer

    async def list_all(self, request: Request, reviewed: Reviewed, caller: Caller) -> Response:
        """List every exclusion there ever was, oldest first."""
        found = await asyncio.to_thread(exclusions.list_exclusions, reviewed.lake)
        return build_json_response(200, _Listed([_show(each) for each in found]))

    async def create(self, request: Request, reviewed: Reviewed, caller: Caller) -> Response:
        """Count what a rule leaves out; with `yes` put it in force."""
        given = await self._read(request, _NewExclusion)
        return await asyncio.to_thread(self._create, reviewed, caller, given)

    async def end(self, request: Request, reviewed: Reviewed, caller: Caller) -> Response:
        """Count what the end of an exclusion lets in again; with `yes` end it."""
        given = await self._read(request, _Decision)
        return await asyncio.to_thread(self._end, reviewed, caller, given, request.path_params["exclusion"])

    async def _read(self, request: Request, kind: type[_Given]) -> _Given:
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise PageRefusal(415, "Send `Content-Type: application/json`.")
        with self._budget.open_share() as share:
            body = await self._reader.read(request, share)
        try:
            return msgspec.json.decode(body, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise PageRefusal(400, f"The body cannot be read: {error}") from None

    def _create(self, reviewed: Reviewed, caller: Caller, given: _NewExclusion) -> Response:
        lake, gold, now = reviewed.lake, reviewed.tables.gold, self._clock()
        if given.source and given.file:
            raise InvalidRuleError("`source` and `import` are two sources: give one of them")
        sender = IMPORT_PREFIX + given.file if given.file else given.source
        statement = exclusions.find_statement(lake, gold, sender, given.event) if given.event and sender else None
        rule = ExclusionRule(
            first_day=given.first_day,
            last_day=given.last_day,
            by=given.by,
            user_id=given.user,
            model_version=given.model_version,
            prediction_id=given.prediction,
            thread_id=given.thread,
            statement_id=statement,
            event_id=None if statement else given.event,
            source=None if statement else sender,
        )
        exclusions.require_columns(gold, rule)
        who = _sign(given.who, caller)
        planned = Exclusion(id="", rule=rule, decided_at=now, decided_by=who, reason=given.reason)
        others = exclusions.list_exclusions_in_force(lake)
        rows = exclusions.count_effect_per_day(lake, gold, others, planned)
        if not given.yes:
            return build_json_response(200, _show(planned, rows))
        done = exclusions.exclude_rows(lake, rule, who=who, reason=given.reason, now=now)
        return build_json_response(201, _show(done, rows))

    def _end(self, reviewed: Reviewed, caller: Caller, given: _Decision, exclusion: str) -> Response:
        lake, gold = reviewed.lake, reviewed.tables.gold
        current = {each.id: each for each in exclusions.list_exclusions_in_force(lake)}
        if exclusion not in current:
            raise UnknownNameError("exclusion in force", exclusion[:80], current)
        others = [each for each in current.values() if each.id != exclusion]
        rows = exclusions.count_effect_per_day(lake, gold, others, current[exclusion])
        if not given.yes:
            return build_json_response(200, _show(current[exclusion], rows))
        who = _sign(given.who, caller)
        done = exclusions.end_exclusion(lake, exclusion, who=who, reason=given.reason, now=self._clock())
        return build_json_response(200, _show(done, rows))


def _sign(who: str, caller: Caller) -> str:
    """Add the key, which is proven, to the name, which is not."""
    return f"{who.strip()} (key {caller.key_id} of {caller.holder})" if caller.key_id else who.strip()


def _show(each: Exclusion, rows: Mapping[date, int] | None = None) -> _Shown:
    return _Shown(
        id=each.id or None,
        what=each.rule.describe(),
        named=each.rule.list_names(),
        rows_by_day=None if rows is None else {day.isoformat(): count for day, count in rows.items()},
        decided_at=each.decided_at if each.id else None,
        decided_by=each.decided_by,
        reason=each.reason,
        ended_at=each.ended_at,
        ended_by=each.ended_by,
        ended_reason=each.ended_reason,
    )
