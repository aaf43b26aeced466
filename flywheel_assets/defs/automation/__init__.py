"""What starts runs: schedules, the training trigger, maintenance, rollback, alerts."""
