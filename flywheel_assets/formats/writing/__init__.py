"""Writes a gold version in the formats of training tools."""
