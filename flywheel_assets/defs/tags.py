"""Names of jobs, groups, sensors and run tags that several definitions share."""

PARTITION_TAG = "dagster/partition"
REASON_TAG = "flywheel/reason"
DAILY_JOB = "{}_daily"
TURN_JOB = "{}_turn"
GROUP = "{}_{}"
"""Application and stage: the UI merges groups of equal name across code locations."""
SENSOR = "training_threshold_sensor"
