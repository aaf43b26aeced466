"""Defines every error that this project raises on purpose.

FlywheelError
├── PermanentError                 the same input will fail again: fix something first
│   ├── SettingsError              a setting is missing, unreadable, out of its range or contradicts another
│   ├── HomeMismatchError          home, catalog, warehouse or landing belong to different homes; nothing was changed
│   ├── NewerReleaseError          a newer release wrote this file, table or home
│   ├── BackupError                a place of backups is damaged or another home's, or a place to restore to is in use
│   ├── UnknownNameError           a name that does not exist; lists the known ones
│   ├── InvalidRuleError           a decision that cannot be meant: no condition, or days in the wrong order
│   ├── InvalidEventError          an event that capture must refuse
│   ├── LandingError
│   │   ├── ClosedDayError         a closed day's files differ from what its closing recorded
│   │   └── LandingRetiredError    a closed day's files were removed by retention
│   ├── DamagedFileError           a file cannot be read any more; names it, and the way back
│   ├── MissingInputError          an input day was never materialized
│   ├── PartitionMismatchError     rows do not belong to the partition they were written for
│   ├── VersionError
│   │   ├── EmptyVersionError      nothing to train on
│   │   ├── VersionConflictError   a tag or export of that name exists with other content
│   │   └── ManifestMismatchError  an exported file is not what its manifest says
│   └── TrainingError              the trainer refused its input or produced an unusable model
└── TransientError                 the same input may succeed later: Dagster retries
    ├── CommitContentionError      the lake's commit lock or catalog stayed busy past the deadline
    ├── CatalogUnavailableError    the catalog's Postgres does not answer
    ├── LockLostError              the catalog's Postgres lost a lock while work continued under it
    ├── StorageUnavailableError    S3 does not answer, or refuses for now
    │   └── LandingUnavailableError  the same of the landing zone
    ├── DiskFullError              a disk that the lake writes to is full; nothing was lost
    ├── OpenSegmentError           capture still writes a segment that holds what is to be erased
    ├── CaptureUnavailableError    the capture service did not answer
    ├── SourceUnavailableError     a system that events are read from does not answer
    ├── ModelServerUnavailableError  the server that writes an evaluation's answers does not answer
    ├── BrokerUnavailableError     the message broker does not answer or refuses for now
    ├── RolloutError               the serving side did not take the new champion
    ├── AlertError                 the webhook for alerts did not take one
    ├── EventLogError              capture cannot make events durable right now: nothing was acknowledged
    │   ├── QueueFullError         more events wait for the disk than the queue may hold
    │   └── LogWriteError          the disk or broker is full or failed, or the log is closed
    └── ProcessDiedError           a training or evaluation process ended without a report
"""

from collections.abc import Iterable


class FlywheelError(Exception):
    """Root of everything raised on purpose; `is_transient` decides whether an orchestrator retries."""

    is_transient = False


class PermanentError(FlywheelError):
    """The same input will fail again."""


class SettingsError(PermanentError):
    """A setting is missing, unreadable, out of its range or contradicts another one (see `ranges`)."""


class S3RefusedError(SettingsError):
    """S3 refuses for good: rights, credentials, or a bucket that does not exist; `code` is S3's."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


class HomeMismatchError(PermanentError):
    """Home, catalog, warehouse or landing belong to different homes, or the home was copied or moved."""


class NewerReleaseError(PermanentError):
    """A newer release wrote this file, table or home, and this one would misread it."""


class BackupError(PermanentError):
    """A place of backups is damaged or another home's, or a place to restore to is in use."""


class UnknownNameError(PermanentError):
    """The received name does not exist."""

    def __init__(self, kind: str, received: str, known: Iterable[str], next_action: str = "") -> None:
        names = ", ".join(sorted(known)) or "none yet"
        super().__init__(f"unknown {kind} {received!r}; known: {names}.{' ' + next_action if next_action else ''}")


class InvalidRuleError(PermanentError):
    """A decision that cannot be meant as it was given."""


class InvalidEventError(PermanentError):
    """An event that capture must refuse; the message is safe to send to the client."""


class LandingError(PermanentError):
    """The landing zone is not what it promised to be."""


class ClosedDayError(LandingError):
    """A closed day's files differ from what its closing recorded."""


class LandingRetiredError(LandingError):
    """A closed day's files were removed by retention, so the day cannot be read again."""


class DamagedFileError(PermanentError):
    """A file cannot be read any more, or is gone.

    The message names it, the thing that it belongs to, and the way back.
    """


class MissingInputError(PermanentError):
    """An input day was never materialized."""


class PartitionMismatchError(PermanentError):
    """Rows do not belong to the partition they were written for."""


class VersionError(PermanentError):
    """A gold version cannot be cut, read or trained from."""


class EmptyVersionError(VersionError):
    """Nothing to train on."""


class VersionConflictError(VersionError):
    """A tag or an export of that name exists with other content."""


class ManifestMismatchError(VersionError):
    """An exported file is not what its manifest says."""


class TrainingError(PermanentError):
    """The trainer refused its input or produced an unusable model."""


class TransientError(FlywheelError):
    """The same input may succeed later."""

    is_transient = True


class CommitContentionError(TransientError):
    """The lake's commit lock or its catalog stayed busy past the deadline."""


class CatalogUnavailableError(TransientError):
    """The catalog's Postgres does not answer; committed work stays."""


class LockLostError(TransientError):
    """The connection of a lock is gone, and others may have begun; invisible work is given up."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"the catalog's Postgres let go of the lock {name} while work went on under it; it is safe to run again"
        )
        self.name = name


class StorageUnavailableError(TransientError):
    """S3 does not answer, or refuses for now; `code` is S3's or the client's, None where another library asked."""

    def __init__(self, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.code = code


class PartitionChangedError(TransientError):
    """Another writer has changed a partition since the rows were read that were to replace it."""


class DiskFullError(TransientError):
    """A disk that the lake writes to is full; committed work stays, unfinished work is gone."""


class OpenSegmentError(TransientError):
    """Capture still writes a segment that holds what is to be erased."""


class CaptureUnavailableError(TransientError):
    """The capture service did not answer."""


class SourceUnavailableError(TransientError):
    """A system that events are read from does not answer; what was read before is durable."""


class ModelServerUnavailableError(TransientError):
    """The server that writes an evaluation's answers does not answer, or refuses for now; written answers are kept."""


class LandingUnavailableError(StorageUnavailableError):
    """The landing zone on S3 does not answer, or refuses for now."""


class BrokerUnavailableError(TransientError):
    """The message broker does not answer, or refuses for now; unsettled messages come again."""


class EventLogError(TransientError):
    """Capture cannot make events durable right now; nothing of the request was acknowledged."""


class QueueFullError(EventLogError):
    """More events wait for the disk than the queue may hold."""


class LogWriteError(EventLogError):
    """The disk or the broker is full or failed, or the log is closed."""


class RolloutError(TransientError):
    """The serving side did not take the new champion; announcing again is safe."""


class AlertError(TransientError):
    """The webhook for alerts did not take one."""


class ProcessDiedError(TransientError):
    """A training or evaluation process ended without leaving its report."""
