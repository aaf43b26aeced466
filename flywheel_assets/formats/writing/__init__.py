"""Writes a gold version in the formats of training tools.

Every function here is pure: an `Example` becomes a row of a format, or the reason why it cannot be one. Who writes the
files and counts the reasons is `lake.versions.sharing`.
"""
