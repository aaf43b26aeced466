"""Turns edits into training pairs: edit gate, duplicates, breaker, influence caps, resolution.

Pure: no files, no clock.
"""
