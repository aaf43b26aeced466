"""Erases one person's rows and texts everywhere in the lake, and writes a receipt.

A killed erasure can be repeated, and then finishes. May import every other room of the lake except `lake.whatif`.
"""
