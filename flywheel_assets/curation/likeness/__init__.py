"""Finds what makes two texts the same statement: words, signatures, anchors and added word pairs, all stored as hashes.

Pure; knows columns of texts, and neither the edit gate nor the policy.
"""
