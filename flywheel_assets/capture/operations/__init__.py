"""Serves operators: health, metrics, OpenAPI, logs, and the browser client's script.

It imports the endpoints, `auth` and `http`, and decides nothing about events.
"""
