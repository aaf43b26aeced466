"""Every failure is permanent or transient, and Dagster obeys: only the transient is retried."""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from flywheel_assets.errors import FlywheelError

FAILURE_TAG = "flywheel/failure"
PERMANENT = "permanent"
TRANSIENT = "transient"
RETRY_REQUESTED = "retry_requested"

# For the light daily assets; a failed training is retried by the sensor, as the same version.
RETRY_TRANSIENT = dg.RetryPolicy(max_retries=3, delay=2, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.FULL)


@contextmanager
def failures_are_classified(context: dg.AssetExecutionContext) -> Iterator[None]:
    """Tag the run with what kind of failure ended it, for the trigger and for people, and forbid useless retries.

    An exception that is not ours is a defect of the code: permanent. A run that was killed leaves no tag at all, which
    the trigger reads as transient.
    """
    try:
        yield
    except dg.Failure:
        raise
    except FlywheelError as error:
        context.instance.add_run_tags(context.run.run_id, {FAILURE_TAG: TRANSIENT if error.is_transient else PERMANENT})
        raise dg.Failure(
            description=str(error),
            metadata={"error": type(error).__name__, "is_transient": error.is_transient},
            allow_retries=error.is_transient,
        ) from error
    except Exception:
        context.instance.add_run_tags(context.run.run_id, {FAILURE_TAG: PERMANENT})
        raise
