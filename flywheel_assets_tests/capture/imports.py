"""Imports files into a landing zone, as `flywheel import` does."""

from pathlib import Path
from typing import Any

from flywheel_assets.capture.clock import Clock, read_clock
from flywheel_assets.capture.importing.files import ImportPlan, import_files
from flywheel_assets.capture.importing.report import ImportReport
from flywheel_assets.capture.importing.sinks import LogSink
from flywheel_assets.capture.log.segments import SegmentLog
from flywheel_assets.formats.reading.entries import ReadingOptions
from flywheel_assets.formats.reading.sources import Source, find_sources


def import_into(
    landing: Path,
    *given: Path | Source,
    application: str = "assistant",
    clock: Clock = read_clock,
    reading: dict[str, Any] | None = None,
    **said: Any,
) -> ImportReport:
    """Import files or sources; `reading` and `said` are fields of the options and of the plan."""
    sources = [each for one in given for each in ([one] if isinstance(one, Source) else find_sources([one]).sources)]
    plan = ImportPlan(application=application, reading=ReadingOptions(**(reading or {})), **said)
    with SegmentLog(landing, None, clock) as event_log:
        return import_files(sources, plan, LogSink(event_log, application), clock)
