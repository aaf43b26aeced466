"""Stores received events by kind and day, on a disk or in a bucket; a closed day never changes.

Only an erasure replaces segments. `protocol.py` states the promise that both places keep. May import `lake.storage` and
`errors`.
"""
