"""The null S3 server that benchmarks measure clients with: what it promises, by real clients."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError

from benchmarks.null_s3 import REMEMBERED_BYTES, NullS3, null_s3
from benchmarks.raw_s3 import RawS3, client_of

pytestmark = pytest.mark.integration
LARGE = REMEMBERED_BYTES + 5


@pytest.fixture(scope="module")
def server() -> Iterator[NullS3]:
    """One server that forgets large bodies."""
    with null_s3() as running:
        yield running


@pytest.fixture
def client(server: NullS3) -> Any:
    """A boto3 client for it."""
    return client_of(server.environment())


def test_a_small_object_comes_back(client: Any) -> None:
    """Commit records and manifests work against it."""
    client.put_object(Bucket="null", Key="small", Body=b"0123456789")
    assert client.get_object(Bucket="null", Key="small")["Body"].read() == b"0123456789"
    part = client.get_object(Bucket="null", Key="small", Range="bytes=2-4")
    assert part["Body"].read() == b"234"
    assert part["ContentRange"] == "bytes 2-4/10"


def test_of_a_large_object_the_length_is_kept(client: Any) -> None:
    """Its bytes are gone, and a GET gives as many."""
    client.put_object(Bucket="null", Key="large", Body=bytes(LARGE))
    assert client.head_object(Bucket="null", Key="large")["ContentLength"] == LARGE
    assert len(client.get_object(Bucket="null", Key="large")["Body"].read()) == LARGE


def test_everything_is_kept_when_asked() -> None:
    """A verified load gets the bytes that were saved, multipart or not."""
    body = bytes(range(256)) * (LARGE // 256 * 24)
    transfer = TransferConfig(multipart_threshold=2**20, multipart_chunksize=5 * 2**20)
    with null_s3(keep=True) as server:
        client = client_of(server.environment())
        client.upload_fileobj(io.BytesIO(body), "null", "whole", Config=transfer)
        assert client.get_object(Bucket="null", Key="whole")["Body"].read() == body


def test_a_name_is_taken_once(client: Any) -> None:
    """`If-None-Match: *` is honoured, which commits rest on."""
    client.put_object(Bucket="null", Key="once", Body=b"first", IfNoneMatch="*")
    with pytest.raises(ClientError, match="PreconditionFailed"):
        client.put_object(Bucket="null", Key="once", Body=b"second", IfNoneMatch="*")
    assert client.get_object(Bucket="null", Key="once")["Body"].read() == b"first"


def test_a_listing_has_pages_and_folders(client: Any) -> None:
    """All keys come, page by page; a delimiter folds them."""
    keys = [f"list/{folder}/{number}" for folder in "ab" for number in range(3)]
    for key in keys:
        client.put_object(Bucket="null", Key=key, Body=b"")
    pages = client.get_paginator("list_objects_v2").paginate(
        Bucket="null", Prefix="list/", PaginationConfig={"PageSize": 2}
    )
    assert [item["Key"] for page in pages for item in page["Contents"]] == keys
    folded = client.list_objects_v2(Bucket="null", Prefix="list/", Delimiter="/")
    assert [item["Prefix"] for item in folded["CommonPrefixes"]] == ["list/a/", "list/b/"]


def test_what_is_deleted_is_gone(client: Any) -> None:
    """One key or many at once; a copy of it stays."""
    client.put_object(Bucket="null", Key="gone", Body=b"1")
    client.copy_object(Bucket="null", Key="copy", CopySource={"Bucket": "null", "Key": "gone"})
    client.delete_objects(Bucket="null", Delete={"Objects": [{"Key": "gone"}]})
    with pytest.raises(ClientError, match="NoSuchKey"):
        client.get_object(Bucket="null", Key="gone")
    client.delete_object(Bucket="null", Key="copy")
    with pytest.raises(ClientError, match="NoSuchKey"):
        client.get_object(Bucket="null", Key="copy")


def test_checksums_that_boto_adds_by_itself_are_taken(server: NullS3) -> None:
    """A client with default settings frames or signs its bodies; what is stored is the body."""
    environment = server.environment()
    client = boto3.client(
        "s3",
        endpoint_url=server.endpoint_url,
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        region_name=environment["AWS_DEFAULT_REGION"],
    )
    client.put_object(Bucket="null", Key="default", Body=io.BytesIO(b"body"))
    assert client.get_object(Bucket="null", Key="default")["Body"].read() == b"body"


def test_plain_sockets_move_the_same_bytes(server: NullS3, client: Any) -> None:
    """The ceiling of the benchmarks is a real PUT and a real ranged GET."""
    raw = RawS3(server.environment(), bucket="null")
    bodies = {f"raw/{number}": memoryview(bytes([number]) * 1000) for number in range(9)}
    assert raw.put_all(bodies) > 0
    found = {key: memoryview(bytearray(1000)) for key in bodies}
    raw.get_all(found)
    assert found == bodies
    with pytest.raises(OSError, match="404"):
        raw.get_all({"raw/none": memoryview(bytearray(1))})
