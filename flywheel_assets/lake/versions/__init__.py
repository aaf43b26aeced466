"""Gold versions: pin, resolve, tag, export, verify, publish, and the decisions about them.

Imports `lake.daily` and what it imports.
"""
