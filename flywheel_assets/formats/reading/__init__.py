"""Turns files, folders, patterns and standard input into numbered records, in bounded memory.

It knows encodings, compression, JSON and tables, and no format of any system.
"""
