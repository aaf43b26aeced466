"""Decides who may send: keys, scopes, webhook signatures and rates.

It imports `capture/http` for its refusals, and knows no event.
"""
