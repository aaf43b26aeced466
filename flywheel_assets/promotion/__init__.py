"""Decides about a promotion from measures and limits: the promotion gate, for texts and for classifiers.

Pure: no files, no clock. May import `measures`, `ranges` and `errors`.
"""
