"""Makes events durable: segments on disk, and their way to S3."""
