"""Turns edits into training pairs: edit gate, verdicts, breaker, influence caps, resolution.

Pure: no files, no clock.
"""
