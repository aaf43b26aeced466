"""Scores base, champion and challenger on the same held-out rows, in a process of its own.

Model libraries are imported inside functions. May import `models`, `promotion`, `measures`, `lake` and `curation`.
"""
