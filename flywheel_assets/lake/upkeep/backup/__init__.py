"""Backs up a whole home into a place of files by content, and restores it from there. See docs/adr/0048.

`place` knows the files there, `manifest` their list, `taking` and `restoring` the two ways.
"""
