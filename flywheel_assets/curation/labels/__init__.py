"""Turns labels into training rows: score contract, discrepancies, sampling, resolution. Pure: no files, no clock."""
