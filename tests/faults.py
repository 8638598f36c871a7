"""What can go wrong with a request to a store, and a script of rules that says which ones do."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias


@dataclass(frozen=True, slots=True)
class Before:
    """The request is lost: `action` is done (say, a process killed), the server hears nothing."""

    action: Callable[[], object] | None = None
    reset: bool = False
    """Whether the client sees a reset instead of an end."""


@dataclass(frozen=True, slots=True)
class After:
    """The answer is lost: the server is done, `action` is done, the client hears nothing."""

    action: Callable[[], object] | None = None
    reset: bool = False


@dataclass(frozen=True, slots=True)
class Refuse:
    """The proxy answers in the server's place, with an S3 error."""

    status: int = 503
    code: str = "SlowDown"


@dataclass(frozen=True, slots=True)
class HalfRequest:
    """Half of the request's body reaches the server, then both connections end."""

    action: Callable[[], object] | None = None


@dataclass(frozen=True, slots=True)
class HalfResponse:
    """The answer's head and half of its body reach the client, then the connection ends."""


@dataclass(frozen=True, slots=True)
class Flip:
    """One bit in the middle of the answer's body is turned over on the way to the client."""


@dataclass(frozen=True, slots=True)
class Duplicate:
    """The server gets the request twice; the client hears the first or the second answer."""

    heard: int = 2


@dataclass(frozen=True, slots=True)
class Delay:
    """The request waits before it is forwarded."""

    wait_s: float


@dataclass(frozen=True, slots=True)
class Hold:
    """The request waits for `until` (its client may be dead by then) and is forwarded."""

    until: threading.Event


Fault: TypeAlias = (
    Before | After | Refuse | HalfRequest | HalfResponse | Flip | Duplicate | Delay | Hold
)


class Script(Protocol):
    """Chooses the requests that go wrong. Asked once for each request, in order."""

    @property
    def fault(self) -> Fault:
        """How they go wrong."""

    def takes(self, request: Request) -> bool:
        """Whether `request` does."""


@dataclass(slots=True)
class Rule:
    """Which requests go wrong, and how. What is None matches everything."""

    fault: Fault
    number: int | None = None
    """The n-th request since the script began, from 0."""
    method: str | None = None
    """`LIST` for a listing."""
    key: str | None = None
    """A regular expression, searched in the key (for a listing, in the prefix)."""
    times: int = 1
    """How many requests this rule still spoils."""
    skip: int = 0
    """How many matching requests pass first."""

    def takes(self, request: Request) -> bool:
        """Whether this rule spoils `request`; counts."""
        if not self._matches(request) or self.times == 0:
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.times -= 1
        return True

    def _matches(self, request: Request) -> bool:
        return (
            self.number in {None, request.number}
            and self.method in {None, request.method}
            and (self.key is None or re.search(self.key, request.key) is not None)
        )


@dataclass(slots=True)
class Request:
    """One recorded request."""

    number: int
    method: str
    """As in HTTP, but `LIST` for a listing."""
    key: str
    """Without the bucket; the prefix for a listing."""
    fault: Fault | None = None
    status: int | None = None
    """What the server answered; None while it did not."""
