"""The landing zone: received events by kind and day, on a disk or in a bucket. Imports `lake.storage`."""
