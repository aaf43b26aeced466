"""Pins, resolves, tags, exports, verifies and publishes gold versions, and records decisions about them.

A version never changes once it is pinned; only an erasure rewrites it, as a new revision. Its folder and the lake hold
all there is to know about it. May import `lake.daily` and the rooms below it.
"""
