"""Trains adapters and classifiers, each in a process of its own, by typed recipes.

Model libraries are imported inside functions. May import `models`, `measures`, `lake` and `curation`.
"""
