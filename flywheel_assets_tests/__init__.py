"""Tests, one folder per room; `builders.py` makes the records they speak about."""
