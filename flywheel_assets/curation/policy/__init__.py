"""The content policy: personal data, secrets, injection, language, and the verdict about one text.

Pure: no files, no clock.
"""
