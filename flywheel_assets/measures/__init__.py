"""Measures models and data: edit distances, classifier metrics, drift.

Pure: no files, no clock. May import `ranges`, `records` and `errors`.
"""
