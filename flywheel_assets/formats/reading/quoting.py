"""Defines what quotation marks mean in a table; apart from the readers, because the command line offers the choice."""

from enum import StrEnum


class Quoting(StrEnum):
    """Says what quotation marks mean in a table."""

    CSV = "csv"
    """As RFC 4180 has it: they surround cells, and stand doubled within."""
    NONE = "none"
    """Nothing: they are characters like any other."""
