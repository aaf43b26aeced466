"""Reads comparison sets: each record holds two or more answers to one prompt, or one answer that was judged."""

from flywheel_assets.formats.format import Format

FORMATS: tuple[Format, ...] = ()
