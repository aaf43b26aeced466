"""What becomes of labels: the score contract, discrepancies, sampling, resolution. Pure: no files, no clock."""
