"""Gold versions: pin, resolve, tag, export, verify, publish, and the decisions about them.

A version never changes once it is pinned; only an erasure rewrites it, as a new revision. Its folder and the lake hold
all there is to know about it. Imports `lake.daily` and the rooms below it.
"""
