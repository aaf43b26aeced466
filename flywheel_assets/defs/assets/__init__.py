"""Builds the assets of both kinds of application, in data order.

Each body loads, calls one function of the lake, stores and reports. May import the modules of `defs` that build no
flywheel.
"""
