"""Turns labels into training rows: score contract, discrepancies, sampling, resolution.

Pure: no files, no clock. May import `curation.sql_literals`, `curation.arrow`, `ranges`, `records` and `errors`.
"""
