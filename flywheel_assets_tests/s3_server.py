"""moto's S3 server in this process, with a bucket of its own: what moto holds outlives a server."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest


@dataclass(frozen=True)
class S3Server:
    """Where it listens, a client for it, and the bucket."""

    endpoint: str
    client: Any
    bucket: str


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """A running server; sets the credentials that every AWS client finds."""
    boto3 = pytest.importorskip("boto3")
    server_module = pytest.importorskip("moto.server", exc_type=ImportError)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        client = boto3.session.Session().client("s3", endpoint_url=endpoint)
        bucket = f"events-{uuid.uuid4().hex}"
        client.create_bucket(Bucket=bucket)
        try:
            yield S3Server(endpoint, client, bucket)
        finally:
            client.close()
            server.stop()
