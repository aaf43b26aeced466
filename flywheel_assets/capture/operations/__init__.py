"""Health, metrics, OpenAPI and logs of the service."""
