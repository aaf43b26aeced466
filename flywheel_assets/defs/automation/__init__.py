"""Starts runs and reports them: schedule, training trigger, weekly maintenance, rollback, alerts.

May import the modules of `defs` that build no asset and no flywheel.
"""
