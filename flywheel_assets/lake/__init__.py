"""Landing files, Iceberg tables and gold versions: everything that lasts."""
