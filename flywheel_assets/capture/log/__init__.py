"""Makes events durable: writes segments on disk, and ships them to S3.

It imports `capture/events` for the rows and the lake's landing and storage, and knows no HTTP.
"""
