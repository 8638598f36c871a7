"""S3 storage over TLS: certificates are verified, bodies travel as over http."""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from checkpointing.clock import now_us
from checkpointing.errors import StorageError
from checkpointing.object_storage import ObjectStorage
from checkpointing.object_storage_patience import Patience
from tests.scripted_s3 import Say, ScriptedS3, scripted_s3

QUICK = Patience(connect_s=5.0, stall_s=5.0, attempts=3, first_wait_s=0.001)
BODY = bytes(range(256)) * 40_000


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a certificate for 127.0.0.1, signed by itself, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "store")])
    now = datetime.fromtimestamp(now_us() / 1e6, UTC)
    here = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(here, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "store.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return path


@pytest.fixture
def server(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedS3]:
    """A scripted server that speaks TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with scripted_s3(context) as found:
        monkeypatch.setenv("AWS_ENDPOINT_URL", found.endpoint_url)
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "known")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        yield found


def test_bodies_travel_over_tls(
    server: ScriptedS3, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `AWS_CA_BUNDLE` both ways work, over one connection, without a hash of the body."""
    monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))
    storage = ObjectStorage("bucket", prefix="", patience=QUICK)
    storage.put("k", BODY)
    server.will(Say(206, body=BODY, headers={"Content-Range": f"bytes 0-9/{len(BODY)}"}))
    target = bytearray(len(BODY))
    assert storage.get_into("k", memoryview(target)) == len(BODY)
    assert server.asked[0].body == BODY
    assert bytes(target) == BODY
    assert [asked.connection for asked in server.asked] == [1, 1]
    assert "x-amz-content-sha256" not in server.asked[0].headers
    assert storage.exists("k")


def test_a_stranger_s_certificate_is_refused(server: ScriptedS3) -> None:
    """Nothing is sent to a server that nobody vouches for, and it is not tried again."""
    storage = ObjectStorage("bucket", prefix="", patience=QUICK)
    for ask in (lambda: storage.put("k", BODY), lambda: storage.list("")):
        with pytest.raises(StorageError, match=r"(?i)certificate") as caught:
            ask()
        assert caught.value.code == "storage-failed"
    assert server.asked == []
