"""A day with more feedback than the breaker lets through, after days of twenty rows."""

from flywheel_assets.curation.texts.breaker import BreakerLimits

LIMITS = BreakerLimits(min_rows=20, max_burst_factor=2, min_trailing_days=2, trailing_days=3)
RAID = 41
"""Rows: twice as many and one more."""
