"""Reads exports of tools in which people judge and correct answers."""

from flywheel_assets.formats.format import Format

FORMATS: tuple[Format, ...] = ()
