"""Names of jobs, sensors and run tags that several definitions share."""

PARTITION_TAG = "dagster/partition"
REASON_TAG = "flywheel/reason"
DAILY_JOB = "{}_daily"
TURN_JOB = "{}_turn"
SENSOR = "training_threshold_sensor"
