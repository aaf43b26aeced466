"""Curates feedback: edit bands, duplicates, policy, resolution of a version. Pure: Arrow in, Arrow out."""
