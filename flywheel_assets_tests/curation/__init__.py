"""Tests of the curation room."""
