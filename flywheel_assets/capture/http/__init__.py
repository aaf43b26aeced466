"""Moves bytes over HTTP: bodies, answers and connections, for posts of single events at low cost.

It imports Starlette, uvicorn and msgspec, nothing of this project, and knows no event.

What Starlette costs too much for, each figure as a share of one single-event request:

- its router and middleware, a sixth: posts go straight to their receiver (`service._Capture`);
- header searches, half a dozen linear searches a request: headers are in a dict (`intake._Request`);
- a wrapped `concurrent.futures.Future`, a tenth: the writer thread settles the loop's future (`log.segments`);
- a locked `prometheus_client.Counter`, a tenth: counts are plain numbers (`operations.telemetry`).

What uvicorn does not bound: size and time of the request line and headers, and the number of idle connections
(`connection`); the memory of all bodies together (`bodies`), and what of it each kind of sender may have (`admission`).
"""
