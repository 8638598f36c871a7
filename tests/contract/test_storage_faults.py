"""S3 storage through a proxy that harms requests on their way to a real server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from checkpointing.object_storage import ObjectStorage
from checkpointing.object_storage_patience import Patience
from tests.fault_proxy import FaultProxy, faulty
from tests.faults import After, Before, Fault, HalfRequest, HalfResponse, Refuse, Rule
from tests.s3_server import S3Server, s3_server

__all__ = ["s3_server"]

pytestmark = pytest.mark.integration

QUICK = Patience(attempts=4, first_wait_s=0.001, longest_wait_s=0.01)
BODY = bytes(range(256)) * 40_000
LOST: list[Fault] = [Before(reset=True), After(reset=True), Refuse()]


@pytest.fixture
def proxy(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """A proxy that our storage is led through."""
    with faulty(s3_server) as (found, environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield found


@pytest.fixture
def storage(
    proxy: FaultProxy, s3_server: S3Server, request: pytest.FixtureRequest
) -> ObjectStorage:
    """A folder of its own for each test."""
    return ObjectStorage(s3_server.bucket, prefix=request.node.name, patience=QUICK)


@pytest.mark.parametrize("fault", [*LOST, HalfRequest(), HalfResponse()])
def test_every_kind_of_request_gets_through(
    proxy: FaultProxy, storage: ObjectStorage, fault: Fault
) -> None:
    """Each operation is harmed at its first two tries, and does what it should."""
    operations = ("PUT", "GET", "LIST", "DELETE")
    proxy.script(*(Rule(fault, method=method, times=2) for method in operations))
    storage.put("k", BODY)
    target = bytearray(len(BODY))
    assert storage.get_into("k", memoryview(target)) == len(BODY)
    assert bytes(target) == BODY
    assert [item.length for item in storage.list("")] == [len(BODY)]
    storage.delete("k")
    assert not storage.exists("k")
    harmed = [request.method for request in proxy.requests if request.fault is not None]
    assert {*harmed} == {*operations}


@pytest.mark.parametrize("fault", [*LOST, HalfRequest()])
def test_a_condition_survives_a_lost_answer(
    proxy: FaultProxy, storage: ObjectStorage, fault: Fault
) -> None:
    """Who added the object is told so, the next one is not, with the same trouble for both."""
    proxy.script(Rule(fault, method="PUT", times=1))
    assert storage.put_if_absent("k", b"first")
    proxy.script(Rule(fault, method="PUT", times=1))
    assert not storage.put_if_absent("k", b"second")
    assert storage.get("k") == b"first"
