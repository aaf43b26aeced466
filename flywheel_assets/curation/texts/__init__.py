"""What becomes of texts: edit bands, duplicates, breaker, influence caps, resolution. Pure: no files, no clock."""
