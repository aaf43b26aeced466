"""Plays the first story: engineers correct a coding assistant that learnt their libraries wrongly.

Only `run.py` imports Dagster.
"""
