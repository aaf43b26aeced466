"""Defines one format: how a record of it is recognised, and which events it becomes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flywheel_assets.formats.record import Record
from flywheel_assets.wire import Choice, Edit, FeedbackCloudEvent, PredictionCloudEvent

Event = PredictionCloudEvent | FeedbackCloudEvent | Edit | Choice
"""What a record may become. The `source` of a CloudEvent is the format's name; who imports it replaces it.

An id of an event is unique within the format: `<id of the system>` or `<id>/<part>` where one record gives several. A
`prediction_id` is the id under which the system itself refers to the answer, so that feedback in another file or
request meets it.
"""


@dataclass(frozen=True, kw_only=True)
class Format:
    """Describes the records of one system or of one kind of data set."""

    name: str
    """As `--format` and the documentation call it: lower case, words joined by hyphens."""
    title: str
    """The system and the export, for people."""
    matches: Callable[[Record], bool]
    """Returns whether a record has this format; cheap, never raises, never true for another format's records."""
    convert: Callable[[Record], Sequence[Event]]
    """Turns a record into events, in the order in which they happened; none where the record says nothing of use.

    Pure. Raises `InvalidEventError` with a reason for a record that has the format and cannot be used.
    """
    has_global_ids: bool = False
    """Whether its ids are unique in the system, so that a second export of the same record is recognised under any
    file name. Otherwise ids count within one file."""
    fields: tuple[str, ...] = ()
    """Names of its top-level fields, by which the formats nearest to an unknown record are found."""
