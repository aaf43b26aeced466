"""People decide what the machine cannot: pages on the capture service; decisions are ordinary feedback events."""
