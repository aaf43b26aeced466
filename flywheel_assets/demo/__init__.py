"""Plays the two stories of `flywheel demo`: simulated worlds that use the product as a user would.

Only the command line imports it.
"""
