"""Imports sources: reads each, finds its format, lands its records and counts what became of them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from itertools import chain, islice

from flywheel_assets.capture.clock import Clock, read_clock
from flywheel_assets.capture.events.attestation import Sender
from flywheel_assets.capture.events.texts import Reception
from flywheel_assets.capture.importing._landing import (
    SCORES,
    SENDER_PREFIX,
    LandedEvent,
    Lander,
    ScoreLander,
    SenderLander,
    TextLander,
    check_documents,
    is_document,
    list_unread_scores,
)
from flywheel_assets.capture.importing.report import FileReport, ImportReport, Tally
from flywheel_assets.capture.importing.sinks import RowSink
from flywheel_assets.curation.labels.score_contract import ScoreContract
from flywheel_assets.errors import InvalidEventError
from flywheel_assets.formats.catalog import AUTO
from flywheel_assets.formats.conversion import SAMPLE_RECORDS, FieldMap, choose_conversion, is_record, list_unread
from flywheel_assets.formats.reading.entries import Entry, ReadingOptions, Unreadable
from flywheel_assets.formats.reading.opening import Reading, open_reading
from flywheel_assets.formats.reading.sources import Source
from flywheel_assets.records import IMPORT_PREFIX

EVENT_BYTES = 4 * 2**20
_SAMPLE_BYTES = 16 * 2**20
_STEP_RECORDS = 500


@dataclass(frozen=True, kw_only=True)
class ImportPlan:
    """Says whose events are imported, and what a person has said about the sources."""

    application: str
    """A known name: the caller has checked it."""
    contract: ScoreContract | None = None
    """Of a classification application; None: its predictions are texts."""
    format: str = AUTO
    mapping: FieldMap | None = None
    reading: ReadingOptions = field(default_factory=ReadingOptions)
    limit: int | None = None
    """Records to read in all; None: every one."""
    event_bytes: int = EVENT_BYTES
    """A longer landed row is refused."""
    labels_as: frozenset[str] | None = None
    """The trusted labeling sources that may be claimed; None: all of them, as for a person who imports a file."""
    sender: Sender | None = None
    """Says what the key of the request vouches for; None: a person imports."""
    as_history: bool = False
    """Whether each record lands on its own day, so that a feature is required from its first day on only."""
    is_sent: bool = False
    """Whether an ordinary sender brings the records in a request; see `SenderLander`."""


Progress = Callable[[int, int], None]
"""Takes the numbers of records and of bytes that were read of the source so far."""


def import_files(
    sources: Sequence[Source],
    plan: ImportPlan,
    sink: RowSink,
    clock: Clock = read_clock,
    on_progress: Progress = lambda _records, _bytes: None,
) -> ImportReport:
    """Land every good record of the sources; when this returns they are durable.

    Raises:
        UnknownNameError: no format or encoding has the given name.
        EventLogError: the disk refused; import again when it has room, what landed already is recognized.
    """
    tally = Tally()
    moments = _Moments(plan, clock)
    options = replace(plan.reading, is_record=_choose_record_test(plan))
    for source in sources:
        left = None if plan.limit is None else plan.limit - sum(each.records for each in tally.files)
        if left is not None and left <= 0:
            break
        file = tally.open_file(source.name)
        try:
            with open_reading(source, options) as reading:
                _import_one(reading, file, tally, plan, sink, moments, on_progress, left)
                file.escaped_rows = reading.escaped_rows
        except InvalidEventError as error:
            file.problem = str(error)
    sink.finish()
    return tally.report()


class _Moments:
    """Gives every record a time of receipt later than the one before it, so that records keep their order."""

    def __init__(self, plan: ImportPlan, clock: Clock) -> None:
        self._clock = clock
        self._plan = plan
        self._reception = self._receive(clock())
        self._given = 0

    def receive_next(self) -> Reception:
        """Return the reception of the next record; the clock is asked once in a while."""
        self._reception.advance()
        self._given += 1
        if self._given % _STEP_RECORDS == 0:
            now = self._clock()
            if now > self._reception.received_at:
                self._reception = self._receive(now)
        return self._reception

    def _receive(self, now: datetime) -> Reception:
        plan = self._plan
        return Reception(plan.application, now, plan.contract, plan.labels_as, plan.sender, plan.as_history)


def _import_one(
    reading: Reading,
    file: FileReport,
    tally: Tally,
    plan: ImportPlan,
    sink: RowSink,
    moments: _Moments,
    on_progress: Progress,
    limit: int | None,
) -> None:
    file.shape, file.unit = reading.shape, reading.unit
    entries = islice(reading, limit)
    sample = _take_sample(entries)
    try:
        lander = _choose_lander([each for each in sample if isinstance(each, Entry)], file, plan)
    except InvalidEventError:
        file.records = file.refused = len(sample)  # the others are not worth reading
        raise
    for entry in chain(sample, entries):
        file.records += 1
        reception = moments.receive_next()
        if isinstance(entry, Unreadable):
            tally.refuse(file, entry.number, entry.problem)
            continue
        try:
            landed = lander.land(entry.value, reception)
            _check_size(landed, plan.event_bytes)
        except InvalidEventError as error:
            tally.refuse(file, entry.number, str(error))
            continue
        file.accepted += bool(landed)
        file.unused += not landed
        for kind, event in landed:
            tally.events[kind] += 1
            sink.add(event.rows)
        if file.records % _STEP_RECORDS == 0:
            on_progress(file.records, reading.bytes_read)
    on_progress(file.records, reading.bytes_read)


def _take_sample(entries: Iterator[Entry | Unreadable]) -> list[Entry | Unreadable]:
    sample: list[Entry | Unreadable] = []
    size_bytes = 0
    for entry in entries:
        sample.append(entry)
        size_bytes += _measure(entry)
        if len(sample) == SAMPLE_RECORDS or size_bytes >= _SAMPLE_BYTES:
            break
    return sample


def _measure(entry: Entry | Unreadable) -> int:
    if isinstance(entry, Unreadable):
        return len(entry.problem)
    if isinstance(entry.value, bytes):
        return len(entry.value)
    # A Parquet file of a kilobyte may have megabytes in each of its rows.
    return sum(len(cell) if isinstance(cell, str) else len(repr(cell)) for cell in entry.value.values())


def _choose_lander(sample: Sequence[Entry], file: FileReport, plan: ImportPlan) -> Lander:
    if plan.contract is not None:
        check_documents(sample, file.name, plan.application)
        file.format, file.title = SCORES, "predictions and labels by the application's field mapping"
        file.unread = tuple(list_unread_scores(sample, plan.contract))
        source = f"{SENDER_PREFIX}{SCORES}" if plan.is_sent else f"{IMPORT_PREFIX}{file.name}"
        return ScoreLander(source, plan.is_sent)
    conversion = choose_conversion(sample, file.name, plan.format, plan.mapping)
    file.format, file.title = conversion.name, conversion.title
    file.unread = tuple(list_unread(sample, conversion))
    return SenderLander(conversion, file.name) if plan.is_sent else TextLander(conversion, file.name)


def _choose_record_test(plan: ImportPlan) -> Callable[..., bool]:
    if plan.contract is not None:
        return partial(is_document, contract=plan.contract)
    return is_record


def _check_size(landed: Sequence[LandedEvent], event_bytes: int) -> None:
    for _, event in landed:
        for row in event.rows:
            if len(row.line) > event_bytes:
                raise InvalidEventError(f"the event has {len(row.line)} bytes; valid: at most {event_bytes}")
