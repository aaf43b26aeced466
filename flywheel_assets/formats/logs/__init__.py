"""Reads what serving, chat and observability tools keep: calls of a model, and what people said of the answers."""

from flywheel_assets.formats.format import Format
from flywheel_assets.formats.logs import (
    continue_dev,
    helicone,
    langfuse,
    langsmith,
    litellm,
    mlflow_traces,
    open_webui,
    openai_logs,
    otlp,
    phoenix,
    posthog,
)

FORMATS: tuple[Format, ...] = (
    open_webui.FORMAT,
    langfuse.FORMAT,
    langsmith.FORMAT,
    mlflow_traces.FORMAT,
    otlp.FORMAT,
    phoenix.FORMAT,
    litellm.FORMAT,
    helicone.FORMAT,
    posthog.FORMAT,
    continue_dev.FORMAT,
    openai_logs.FORMAT,
)
