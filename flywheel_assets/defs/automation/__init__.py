"""Starts runs: schedules, the training trigger, maintenance, rollback; and sends alerts."""
