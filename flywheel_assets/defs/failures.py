"""Classifies every failure as permanent or transient; Dagster retries only the transient."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg

from flywheel_assets.errors import EmptyVersionError, FlywheelError
from flywheel_assets.lake.versions.folders import parse_version_number
from flywheel_assets.models.own_process import is_transient

FAILURE_TAG = "flywheel/failure"
PERMANENT = "permanent"
EMPTY = "empty"
"""Permanent as well, until there is something to train on; a cut that ends so has begun nothing."""
TRANSIENT = "transient"
RETRY_REQUESTED = "retry_requested"

# For the light daily assets; a failed training is retried by the sensor, as the same version.
RETRY_TRANSIENT = dg.RetryPolicy(max_retries=3, delay=2, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.FULL)


@contextmanager
def classify_failures(context: dg.AssetExecutionContext) -> Iterator[None]:
    """Tag a failed run as permanent or transient, and forbid useless retries.

    The training trigger and people read the tag. An exception that is not ours is a defect of the code, thus permanent,
    unless a disk, lock or database was busy. Its message may quote a user's text, which must not get into Dagster's
    event log: the log names only the place of the error. A killed run has no tag; the trigger reads that as transient.
    """
    try:
        yield
    except dg.Failure:
        raise
    except FlywheelError as error:
        raise _build_failure(context, error, str(error), error.is_transient) from error
    except Exception as error:
        # Without its cause: Dagster would store the message of every exception in the chain.
        raise _build_failure(context, error, _locate_error(error), _may_pass(error)) from None


def _build_failure(context: dg.AssetExecutionContext, error: Exception, description: str, may_pass: bool) -> dg.Failure:
    kind = TRANSIENT if may_pass else EMPTY if isinstance(error, EmptyVersionError) else PERMANENT
    context.instance.add_run_tags(context.run.run_id, {FAILURE_TAG: kind})
    return dg.Failure(
        description=_advise(context, kind, description),
        metadata={
            "error": type(error).__name__,
            "is_transient": may_pass,
            "stack": dg.MetadataValue.md("```\n" + "".join(traceback.format_tb(error.__traceback__)) + "```"),
        },
        allow_retries=may_pass,
    )


def _advise(context: dg.AssetExecutionContext, kind: str, description: str) -> str:
    """Say of a gold version's step which version failed, and what comes next; daily steps are retried by Dagster."""
    if not context.has_partition_key or not parse_version_number(context.partition_key):
        return description
    description = description if description.endswith((".", "!", "?")) else f"{description}."
    version, application = context.partition_key, context.asset_key.path[0]
    retry = f"flywheel retry {version} --application {application}"
    if kind == TRANSIENT:
        return f"{version}: {description} The training trigger runs it again, with growing pauses; at once: `{retry}`."
    if kind == EMPTY:
        return f"{version}: {description}"
    return (
        f"{version}: {description} It is not run again by itself: mend the cause, then `{retry}`; or leave it: "
        f"`flywheel abandon {version} --application {application} --reason … --yes`."
    )


def _locate_error(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{type(error).__name__}: {error.strerror} ({error.filename or 'no file named'})"
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {frame.name}, line {frame.lineno} of {Path(frame.filename).name}"


def _may_pass(error: Exception) -> bool:
    # Locks raise TimeoutError; the database errors are SQLAlchemy's and MLflow's, neither of which is imported here.
    is_busy_database = type(error).__name__ == "OperationalError" or (
        getattr(error, "error_code", None) == "TEMPORARILY_UNAVAILABLE"
    )
    return is_transient(error) or isinstance(error, TimeoutError) or is_busy_database
