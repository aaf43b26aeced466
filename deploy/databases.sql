-- Run once by the image, beside the database `flywheel` of the Iceberg catalog.
CREATE DATABASE dagster OWNER flywheel;
CREATE DATABASE mlflow OWNER flywheel;
