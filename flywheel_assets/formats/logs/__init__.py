"""Reads what serving, chat and observability tools keep: calls of a model, and what people said of the answers."""

from flywheel_assets.formats.format import Format

FORMATS: tuple[Format, ...] = ()
