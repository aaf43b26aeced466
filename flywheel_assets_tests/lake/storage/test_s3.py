"""One bucket through `Bucket`: created once, replaced only if unchanged, and every refusal with its code."""

from typing import Any

import pytest

from flywheel_assets.errors import S3RefusedError, StorageUnavailableError
from flywheel_assets.lake.storage.s3 import Bucket, ReplacedError
from flywheel_assets_tests.s3_server import S3Server


def bucket_of(server: S3Server, client: Any = None, name: str | None = None) -> Bucket:
    return Bucket(client or server.client, name or server.bucket, "s3://place", "the setting")


def test_an_object_is_created_once_and_replaced_only_if_it_is_what_was_seen(server: S3Server) -> None:
    bucket = bucket_of(server)
    assert bucket.read("once") is None
    assert bucket.create("once", b"first")
    assert not bucket.create("once", b"second")
    found = bucket.read("once")
    assert found is not None
    content, seen = found
    assert content == b"first"
    newer = bucket.replace("once", b"third", seen)
    with pytest.raises(ReplacedError):
        bucket.replace("once", b"fourth", seen)
    assert bucket.read("once") == (b"third", newer)
    # A repeated request whose first answer was lost finds its own content.
    assert bucket.replace("once", b"third", seen) == newer


def test_versions_are_listed_and_deleted_for_good(server: S3Server) -> None:
    server.client.create_bucket(Bucket="kept")
    bucket = bucket_of(server, name="kept")
    assert not bucket.keeps_versions()
    server.client.put_bucket_versioning(Bucket="kept", VersioningConfiguration={"Status": "Enabled"})
    assert bucket.keeps_versions()
    bucket.create("a", b"1")
    bucket.delete("a")
    assert [(each.key, each.is_latest, each.is_marker) for each in bucket.list_versions("a")] == [
        ("a", False, False),
        ("a", True, True),
    ]
    assert list(bucket.delete_versions(bucket.list_versions("a"))) == []
    assert bucket.list_versions("a") == []


def test_a_refusal_is_permanent_or_transient_and_keeps_s3s_code(server: S3Server) -> None:
    from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError

    class Refuses:
        def __init__(self, error: Exception) -> None:
            self._error = error

        def __getattr__(self, name: str) -> Any:
            raise self._error

    with pytest.raises(S3RefusedError, match="NoSuchBucket; check the setting") as refused:
        bucket_of(server, name="no-such-bucket").create("a", b"")
    assert (refused.value.code, refused.value.is_transient) == ("NoSuchBucket", False)
    for error, code in (
        (ClientError({"Error": {"Code": "SlowDown"}}, "PutObject"), "SlowDown"),
        (EndpointConnectionError(endpoint_url="http://x"), "EndpointConnectionError"),
    ):
        with pytest.raises(StorageUnavailableError, match=code) as silent:
            bucket_of(server, Refuses(error)).list_pages("list_objects_v2", Prefix="a")
        assert (silent.value.code, silent.value.is_transient) == (code, True)
    with pytest.raises(S3RefusedError, match="credentials are found"):
        bucket_of(server, Refuses(NoCredentialsError())).delete("a")
