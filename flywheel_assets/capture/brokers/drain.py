"""Moves messages from a broker into landing segments; it may be killed at any point without loss.

A message is settled (deleted from SQS, committed in Kafka) only after its rows are on disk in a segment. A drain that
dies between the two leaves a message that comes again, and rows that land twice: the lake keeps the first receipt of an
event id. The open segment of a dead drain is published by the next process that starts on the landing zone.

A message that this project cannot read is kept as it is in `<landing>/_unreadable/`, named by its hash, and then
settled: otherwise it would come again for ever, and Kafka would deliver nothing behind it.
"""

import hashlib
import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event

from flywheel_assets.capture.brokers.broker import Consumer, Received
from flywheel_assets.capture.brokers.messages import UnreadableMessageError, unpack_message
from flywheel_assets.capture.events.texts import LandedRow
from flywheel_assets.capture.log.segments import SegmentLog
from flywheel_assets.errors import BrokerUnavailableError, EventLogError, LogWriteError
from flywheel_assets.lake.landing.disk import UNREADABLE_FOLDER
from flywheel_assets.lake.storage.files import write_once

log = logging.getLogger(__name__)

_WAIT_S = 2.0
_LONGEST_PAUSE_S = 30.0


@dataclass(frozen=True)
class DrainCounts:
    """Counts the work of one drain."""

    messages: int = 0
    rows: int = 0
    unreadable: int = 0
    interruptions: int = 0
    """Times that broker or disk failed and the drain started again."""


def drain_broker(
    open_consumer: Callable[[], Consumer],
    segment_log: SegmentLog,
    landing_root: Path,
    stop: Event,
    *,
    until_empty: bool = False,
    wait_s: float = _WAIT_S,
) -> DrainCounts:
    """Move messages until `stop` is set. A broker or disk that fails for now is tried again, for ever.

    Args:
        open_consumer: connects again; messages that the last consumer had not settled must come again.
        segment_log: started, on `landing_root`.
        landing_root: the landing zone.
        stop: set it to end after the batch in work.
        until_empty: end when the broker has nothing for one wait.
        wait_s: how long to wait for a first message, and how soon `stop` is seen.

    Raises:
        SettingsError: there is no such broker, queue or topic, or we may not use it.
    """
    counts = DrainCounts()
    failures = 0
    while not stop.is_set():
        consumer = open_consumer()
        try:
            while not stop.is_set():
                messages = consumer.receive(wait_s)
                if messages:
                    rows, unreadable = _land_messages(messages, segment_log, landing_root)
                    consumer.settle(messages)
                    counts = replace(
                        counts,
                        messages=counts.messages + len(messages),
                        rows=counts.rows + rows,
                        unreadable=counts.unreadable + unreadable,
                    )
                elif until_empty:
                    return counts
                failures = 0
        except (BrokerUnavailableError, EventLogError) as error:
            log.warning("%s", error)
            counts = replace(counts, interruptions=counts.interruptions + 1)
            stop.wait(random.uniform(0.2, min(_LONGEST_PAUSE_S, 2.0**failures)))
            failures = min(failures + 1, 10)
        finally:
            consumer.close()
    return counts


def _land_messages(messages: Sequence[Received], segment_log: SegmentLog, landing_root: Path) -> tuple[int, int]:
    """Make the messages durable; return the number of rows and the number of unreadable messages."""
    rows: dict[str, list[LandedRow]] = {}
    unreadable = 0
    for message in messages:
        try:
            content = unpack_message(message.body)
        except UnreadableMessageError as error:
            unreadable += 1
            name = f"{hashlib.sha256(message.body).hexdigest()}.message"
            log.warning("a message is unreadable (%s) and kept as %s", error, name)
            _keep_unreadable(landing_root / UNREADABLE_FOLDER / name, message.body)
        else:
            rows.setdefault(content.application, []).extend(content.rows)
    for application, of_application in rows.items():
        if of_application:
            # One after the other: a request larger than the log's queue passes only when nothing waits.
            segment_log.submit(application, of_application).result()
    return sum(map(len, rows.values())), unreadable


def _keep_unreadable(path: Path, body: bytes) -> None:
    try:
        write_once(path, body)
    except OSError as error:
        raise LogWriteError(f"the disk refused an unreadable message ({error.strerror}); it is not settled") from None
