"""What goes wrong with a request to S3: every exception and refusal as one kind of `Trouble`.

The kind decides what happens next (try again, fetch new credentials, tell the user); the words are
only for messages. Codes are from the S3 API reference, "Error responses"; other stores have them.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from http.client import HTTPException
from typing import Final

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
    SSLError,
    SSOError,
    TokenRetrievalError,
)
from botocore.exceptions import (
    ConnectionError as BotoConnectionError,
)

_SERVER_ERROR: Final = 500
_TOO_MANY: Final = 429
_CERTIFICATE: Final = "CERTIFICATE_VERIFY_FAILED"  # botocore keeps only the words


class Refused(Exception):  # noqa: N818 - reads as what it says
    """The store answered a request with an error status."""

    def __init__(self, status: int, *, code: str, message: str = "") -> None:
        """`code` is S3's word for it, or the status where the store gave none."""
        super().__init__(f"{status} {code}: {message}" if message else f"{status} {code}")
        self.status = status
        self.code = code


class Kind(StrEnum):
    """What a trouble means for the one who asked."""

    ABSENT = "absent"
    """There is no such object."""
    BUCKET = "bucket"
    """There is no such bucket."""
    PAST_END = "past-end"
    """The range begins where the object has ended."""
    TAKEN = "taken"
    """The condition of a write does not hold: the name is taken."""
    UNSUPPORTED = "unsupported"
    """The store does not do such a thing (say, conditional writes), and says so."""
    CREDENTIALS = "credentials"
    """We are not known, not allowed, or not any more."""
    BUSY = "busy"
    """The store is up and cannot now: another try may do."""
    LOST = "lost"
    """The network ate the request or its answer; it may have taken effect."""
    DAMAGED = "damaged"
    """The body that arrived was not the body that left."""
    REFUSED = "refused"
    """The store understood, and will not."""
    BROKEN = "broken"
    """The client cannot even ask."""


PASSING: Final = frozenset({Kind.BUSY, Kind.LOST, Kind.DAMAGED})
"""Kinds that another try may get past."""

_KINDS: Final[Mapping[str, Kind]] = {
    **dict.fromkeys(("404", "NoSuchKey", "NotFound"), Kind.ABSENT),
    "NoSuchBucket": Kind.BUCKET,
    **dict.fromkeys(("416", "InvalidRange"), Kind.PAST_END),
    **dict.fromkeys(("412", "PreconditionFailed"), Kind.TAKEN),
    **dict.fromkeys(("501", "NotImplemented"), Kind.UNSUPPORTED),
    **dict.fromkeys(
        (
            "401",
            "403",
            "AccessDenied",
            "ExpiredToken",
            "ExpiredTokenException",
            "Forbidden",
            "InvalidAccessKeyId",
            "InvalidToken",
            "SignatureDoesNotMatch",
            "TokenRefreshRequired",
        ),
        Kind.CREDENTIALS,
    ),
    **dict.fromkeys(
        (
            "408",
            "409",
            "ConditionalRequestConflict",  # another writer of the name is at it: look again
            "InternalError",
            "OperationAborted",
            "RequestTimeout",
            "ServiceUnavailable",
            "SlowDown",
            "Throttling",
            "TooManyRequests",
        ),
        Kind.BUSY,
    ),
    **dict.fromkeys(
        ("BadDigest", "InvalidDigest", "XAmzContentChecksumMismatch"),
        Kind.DAMAGED,
    ),
}

FAILURES: Final = (Refused, ClientError, BotoCoreError, HTTPException, OSError)
"""Everything that a request can raise, and nothing that would hide a bug of ours."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """One failed request."""

    kind: Kind
    code: str
    """The store's word, or the exception's name."""
    words: str
    """For the user."""


def trouble_of(error: Exception) -> Trouble:
    """Say what `error`, one of `FAILURES`, means."""
    if isinstance(error, Refused):
        return Trouble(_kind(error.code, error.status), error.code, str(error))
    if isinstance(error, ClientError):
        code = str(error.response.get("Error", {}).get("Code", ""))
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        return Trouble(_kind(code, status), code, str(error))
    return Trouble(_unanswered(error), type(error).__name__, str(error) or type(error).__name__)


def _kind(code: str, status: int) -> Kind:
    found = _KINDS.get(code) or _KINDS.get(str(status))
    if found is not None:
        return found
    return Kind.BUSY if status >= _SERVER_ERROR or status == _TOO_MANY else Kind.REFUSED


def _unanswered(error: Exception) -> Kind:
    match error:
        case NoCredentialsError() | PartialCredentialsError() | CredentialRetrievalError():
            return Kind.CREDENTIALS
        case SSOError() | TokenRetrievalError():
            return Kind.CREDENTIALS  # a log-in that has run out
        case ssl.SSLCertVerificationError():
            return Kind.BROKEN  # a certificate does not get better
        case SSLError() if _CERTIFICATE in str(error):
            return Kind.BROKEN
        case BotoConnectionError() | HTTPClientError() | HTTPException() | OSError():
            return Kind.LOST
        case _:
            return Kind.BROKEN
