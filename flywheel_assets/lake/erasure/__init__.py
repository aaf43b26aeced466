"""Erasure: deletes one person's rows and texts everywhere, and writes a receipt.

Imports every other room of the lake except `lake.whatif`.
"""
