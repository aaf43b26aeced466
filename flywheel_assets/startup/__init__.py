"""Starts an installation, and checks it before a start.

May import every room below it; the checks and the waiting load neither dagster nor mlflow.
"""
