"""Bytes to landed lines: decodes events, edits, scores and labels, or refuses them with a reason."""
