"""Reads the traces of an MLflow experiment by MLflow's own client, page by page."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from flywheel_assets.errors import SourceUnavailableError, UnknownNameError
from flywheel_assets.extras import require_extra

if TYPE_CHECKING:
    from mlflow import MlflowClient

_PAGE_TRACES = 100


@dataclass(frozen=True)
class TraceState:
    """Identifies what MLflow knows of one trace now, without its spans."""

    trace_id: str
    began_at: datetime
    fingerprint: str
    """A hash of its state, metadata, tags and assessments: it changes when any of these does."""
    is_finished: bool


@dataclass(frozen=True)
class MlflowTraces:
    """The traces of one experiment."""

    uri: str
    experiment: str

    def list_pages(self, since: datetime) -> Iterator[list[TraceState]]:
        """List the traces that began at `since` or later, oldest first, in pages of at most 100.

        Raises:
            UnknownNameError: the experiment does not exist.
            SourceUnavailableError: the server does not answer, or refuses.
            SettingsError: MLflow's client is not installed.
        """
        require_extra("tracking", "reading traces from MLflow", ("mlflow",))
        experiment_id = self._find_experiment()
        token: str | None = None
        while True:
            page = self._search(experiment_id, since, token)
            yield [_describe_state(trace) for trace in page]
            token = page.token
            if not token:
                return

    def read(self, trace_ids: Sequence[str]) -> Iterator[tuple[str, dict[str, Any] | None]]:
        """Read traces with their spans and assessments, as MLflow exports them; None: its spans are not there yet.

        Raises:
            SourceUnavailableError: the server does not answer, or refuses.
        """
        from mlflow.exceptions import MlflowException

        for trace_id in trace_ids:
            try:
                yield trace_id, self._client.get_trace(trace_id, display=False).to_dict()
            except MlflowException as error:
                if error.error_code not in ("BAD_REQUEST", "NOT_FOUND", "RESOURCE_DOES_NOT_EXIST"):
                    raise _build_unavailable(error) from None
                yield trace_id, None

    @cached_property
    def _client(self) -> MlflowClient:  # type: ignore[no-any-unimported]
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=self.uri)

    def _find_experiment(self) -> str:
        from mlflow.exceptions import MlflowException

        try:
            found = self._client.get_experiment_by_name(self.experiment)
            if found is not None:
                return str(found.experiment_id)
            known = [each.name for each in self._client.search_experiments(max_results=20)]
        except MlflowException as error:
            raise _build_unavailable(error) from None
        raise UnknownNameError("MLflow experiment", self.experiment, known, "Correct `experiment` of the source.")

    def _search(self, experiment_id: str, since: datetime, token: str | None) -> Any:
        from mlflow.exceptions import MlflowException

        try:
            return self._client.search_traces(
                locations=[experiment_id],
                filter_string=f"trace.timestamp_ms >= {int(since.timestamp() * 1000)}",
                order_by=["timestamp_ms ASC"],
                max_results=_PAGE_TRACES,
                page_token=token,
                include_spans=False,
            )
        except MlflowException as error:
            raise _build_unavailable(error) from None


def _describe_state(trace: Any) -> TraceState:
    info = trace.info.to_dict()
    encoded = json.dumps(info, sort_keys=True, default=str).encode()
    return TraceState(
        trace_id=info["trace_id"],
        began_at=datetime.fromtimestamp(trace.info.request_time / 1000, UTC),
        fingerprint=hashlib.blake2b(encoded, digest_size=16).hexdigest(),
        is_finished=info.get("state") != "IN_PROGRESS",
    )


def _build_unavailable(error: Exception) -> SourceUnavailableError:
    code = getattr(error, "error_code", type(error).__name__)
    # Not its message: MLflow's may quote the request, and with it an address that holds a password.
    return SourceUnavailableError(f"MLflow does not answer or refuses: {code}; check the server and its credentials")
