"""Decides, without files and clock, what a row is worth: the join, the edit gate, mining, resolution.

Takes Arrow and gives Arrow. May import `ranges`, `records` and `errors`.
"""
