"""Judges texts by the content policy: personal data, secrets, injection, language.

Pure: no files, no clock.
"""
