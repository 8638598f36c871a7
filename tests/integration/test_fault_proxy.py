"""The proxy that the crash matrix rests on does what its faults say, to a real S3 server."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

from tests.fault_proxy import FaultProxy, faulty
from tests.faults import (
    After,
    Before,
    Delay,
    Duplicate,
    Fault,
    Flip,
    HalfRequest,
    HalfResponse,
    Hold,
    Refuse,
    Rule,
)
from tests.s3_server import S3Server, s3_server

__all__ = ["s3_server"]

pytestmark = pytest.mark.integration

BODY = bytes(range(256)) * 8_000


@pytest.fixture
def proxy(s3_server: S3Server) -> Iterator[FaultProxy]:
    """A proxy of this test alone."""
    with faulty(s3_server) as (found, _):
        yield found


@pytest.fixture
def client(s3_server: S3Server, proxy: FaultProxy) -> Iterator[Any]:
    """An S3 client that tries once."""
    found = boto3.client(
        "s3",
        endpoint_url=proxy.endpoint_url,
        aws_access_key_id=s3_server.access_key,
        aws_secret_access_key=s3_server.secret_key,
        region_name="us-east-1",
        config=Config(
            retries={"total_max_attempts": 1}, response_checksum_validation="when_required"
        ),
    )
    yield found
    found.close()


def stored(server: S3Server, key: str) -> bytes | None:
    """What the server itself holds."""
    straight = boto3.client(
        "s3",
        endpoint_url=server.endpoint_url,
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
        region_name="us-east-1",
    )
    try:
        return bytes(straight.get_object(Bucket=server.bucket, Key=key)["Body"].read())
    except ClientError:
        return None
    finally:
        straight.close()


def test_requests_pass_and_are_recorded(
    s3_server: S3Server, proxy: FaultProxy, client: Any
) -> None:
    """Signatures hold through the proxy, bodies arrive whole, each request is written down."""
    bucket = s3_server.bucket
    client.put_object(Bucket=bucket, Key="pass/a b", Body=BODY)
    assert client.get_object(Bucket=bucket, Key="pass/a b")["Body"].read() == BODY
    client.head_object(Bucket=bucket, Key="pass/a b")
    client.list_objects_v2(Bucket=bucket, Prefix="pass/")
    client.delete_object(Bucket=bucket, Key="pass/a b")
    with pytest.raises(ClientError, match="NoSuchKey"):
        client.get_object(Bucket=bucket, Key="pass/a b")
    assert [(one.number, one.method, one.key, one.status) for one in proxy.requests] == [
        (0, "PUT", "pass/a b", 200),
        (1, "GET", "pass/a b", 200),
        (2, "HEAD", "pass/a b", 200),
        (3, "LIST", "pass/", 200),
        (4, "DELETE", "pass/a b", 204),
        (5, "GET", "pass/a b", 404),
    ]


@pytest.mark.parametrize(
    ("fault", "arrives"),
    [
        (Before(), False),
        (Before(reset=True), False),
        (After(), True),
        (After(reset=True), True),
        (Refuse(), False),
        (Refuse(500, "InternalError"), False),
        (HalfRequest(), False),
        (HalfResponse(), None),
    ],
    ids=repr,
)
def test_a_spoilt_put(
    s3_server: S3Server, proxy: FaultProxy, client: Any, fault: Fault, arrives: bool | None
) -> None:
    """The client is told of a failure, and the object is there exactly if the answer was lost."""
    key = f"put/{fault!r}"
    proxy.script(Rule(fault, method="PUT"))
    if arrives is None:  # an answer without a body has no half
        client.put_object(Bucket=s3_server.bucket, Key=key, Body=BODY)
    else:
        with pytest.raises((ClientError, BotoCoreError)):
            client.put_object(Bucket=s3_server.bucket, Key=key, Body=BODY)
        assert stored(s3_server, key) == (BODY if arrives else None)
    client.put_object(Bucket=s3_server.bucket, Key=key, Body=BODY)  # once is once
    assert stored(s3_server, key) == BODY


def test_a_refusal_says_its_code(s3_server: S3Server, proxy: FaultProxy, client: Any) -> None:
    """The error looks like the store's own."""
    proxy.script(Rule(Refuse(503, "SlowDown"), times=2))
    for _ in range(2):
        with pytest.raises(ClientError, match="SlowDown"):
            client.list_objects_v2(Bucket=s3_server.bucket)
    client.list_objects_v2(Bucket=s3_server.bucket)


def test_half_an_answer_and_a_flipped_bit(
    s3_server: S3Server, proxy: FaultProxy, client: Any
) -> None:
    """A read ends early with an error, or comes whole and wrong by one bit."""
    client.put_object(Bucket=s3_server.bucket, Key="read", Body=BODY)
    proxy.script(Rule(HalfResponse(), number=0), Rule(Flip(), number=1))
    with pytest.raises(HTTPClientError):
        client.get_object(Bucket=s3_server.bucket, Key="read")["Body"].read()
    found = client.get_object(Bucket=s3_server.bucket, Key="read")["Body"].read()
    assert len(found) == len(BODY)
    assert sum(mine != theirs for mine, theirs in zip(found, BODY, strict=True)) == 1


@pytest.mark.parametrize("heard", [1, 2])
def test_a_duplicate_reaches_the_server_twice(
    s3_server: S3Server, proxy: FaultProxy, client: Any, heard: int
) -> None:
    """Of a conditional write that came twice, the second is told that the name is taken."""
    key = f"twice/{heard}"
    proxy.script(Rule(Duplicate(heard), method="PUT"))
    if heard == 1:
        client.put_object(Bucket=s3_server.bucket, Key=key, Body=b"mine", IfNoneMatch="*")
    else:
        with pytest.raises(ClientError, match="PreconditionFailed"):
            client.put_object(Bucket=s3_server.bucket, Key=key, Body=b"mine", IfNoneMatch="*")
    assert stored(s3_server, key) == b"mine"


def test_rules_choose_by_number_method_and_key(
    s3_server: S3Server, proxy: FaultProxy, client: Any
) -> None:
    """A rule spoils what it names, as often as it says, and nothing else."""
    proxy.script(Rule(Refuse(), method="PUT", key="^choose/b", times=1, skip=1))
    told = []
    for key in ("choose/a", "choose/b1", "choose/b2", "choose/b3"):
        try:
            client.put_object(Bucket=s3_server.bucket, Key=key, Body=b"")
            told.append(True)
        except ClientError:
            told.append(False)
    assert told == [True, True, False, True]
    assert [one.fault for one in proxy.requests if one.fault] == [Refuse()]


def test_a_held_request_waits_for_its_release(
    s3_server: S3Server, proxy: FaultProxy, client: Any
) -> None:
    """Others pass meanwhile; the held one is forwarded when it is let go."""
    release = threading.Event()
    proxy.script(Rule(Hold(release), key="held"), Rule(Delay(0.01), key="late"))
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(client.put_object, Bucket=s3_server.bucket, Key="held", Body=b"x")
        proxy.wait_for(lambda: proxy.requests)
        client.put_object(Bucket=s3_server.bucket, Key="late", Body=b"y")
        assert stored(s3_server, "held") is None
        release.set()
        held.result(20)
    assert stored(s3_server, "held") == b"x"


def test_an_action_happens_at_its_instant(
    s3_server: S3Server, proxy: FaultProxy, client: Any
) -> None:
    """What is done before a request finds nothing at the server; after the answer, the object."""
    seen: list[bytes | None] = []
    look = lambda: seen.append(stored(s3_server, "instant"))  # noqa: E731
    proxy.script(Rule(Before(look), number=0), Rule(After(look), number=1))
    for _ in range(2):
        with pytest.raises(BotoCoreError):
            client.put_object(Bucket=s3_server.bucket, Key="instant", Body=b"now")
    assert seen == [None, b"now"]


def test_stopping_leaves_no_thread_and_no_listener(s3_server: S3Server) -> None:
    """Also with a connection that idles."""
    before = threading.active_count()
    with faulty(s3_server) as (proxy, _):
        idle = http.client.HTTPConnection("127.0.0.1", int(proxy.endpoint_url.rpartition(":")[2]))
        idle.connect()
    assert threading.active_count() == before
    idle.close()
    with pytest.raises(ConnectionRefusedError):
        idle.connect()
