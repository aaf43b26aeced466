"""Plays the second story: a new card fraud appears, and labels come late.

Only `run.py` imports Dagster.
"""
