"""Lets people decide doubtful rows: pages on the capture service; decisions are ordinary feedback events.

May import `capture`, `curation` and `lake`.
"""
