"""The HTTP transport: bodies, framing, answers, and what Starlette costs too much for. Knows no event."""
