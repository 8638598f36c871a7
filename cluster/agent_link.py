"""The agent's way to its server: outward only, over HTTP, as the protocol ``ServerLink``."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import quote

import httpx
from pydantic import ValidationError

from checkpointing.hazard_posterior import Risk
from cluster.flavors import Flavor
from cluster.intents import Intent
from cluster.notices import Notice
from jobs.codec import from_data, to_data
from jobs.errors import AuthError, LowtideError

_TIMEOUT_S = 10.0
_REFUSED = frozenset({401, 403})
_FATAL = frozenset({404, 422})  # an unknown cluster, another version: trying again is no use
_UNWANTED = frozenset({404, 409, 410, 422})


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentConfig:
    """What the server wants this cluster to be."""

    flavors: tuple[Flavor, ...] = ()
    storage: str = ""  # URI under which code archives and checkpoints live
    provider: str = "local"
    provider_options: dict[str, Any] = field(default_factory=dict)
    risks: dict[str, Risk] = field(default_factory=dict)  # by attempt: evictions and price now


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveAttempt:
    """An attempt that runs here; its token proves that we were given it."""

    attempt_id: str
    token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncRequest:
    """What the agent says; ``wait_ms`` is how long the server may wait for news of its own."""

    agent: str
    notices: Sequence[Notice] = ()
    attempts: Sequence[LiveAttempt] = ()
    nodes: Sequence[str] = ()
    wait_ms: int = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncReply:
    """What the server says: all open intents of the cluster, and which notices it has taken."""

    config: AgentConfig
    intents: tuple[Intent, ...] = ()
    accepted: tuple[str, ...] = ()


class ServerLink(Protocol):
    """How an agent reaches its server. None = not now; nothing is lost by trying again."""

    def sync(self, request: SyncRequest) -> SyncReply | None:
        """Exchange news."""

    def send_log(self, attempt_id: str, *, rank: int, offset: int, data: bytes) -> int | None:
        """Hand on a piece of output; give how many bytes the server has now."""

    def close(self) -> None:
        """Hang up."""


class HttpLink:
    """The server's HTTP API."""

    def __init__(self, server: str, *, token: str, cluster: str) -> None:
        """``server`` is its base URL, ``token`` an agent's token."""
        self._base = f"/v1/agents/{quote(cluster, safe='')}"
        self._server = server
        self._client = httpx.Client(
            base_url=server,
            headers={"Authorization": f"Bearer {token}"},
            timeout=_TIMEOUT_S,
            trust_env=False,
        )

    def sync(self, request: SyncRequest) -> SyncReply | None:
        """Exchange news.

        Raises:
            AuthError: the server refuses our token.
            LowtideError: it speaks another version of this protocol.
        """
        answer = self._post("sync", to_data(request))
        if answer is None:
            return None
        try:
            reply: SyncReply = from_data(answer, into=SyncReply)
        except ValidationError as error:
            raise LowtideError(
                f"The server at {self._server} gave an answer that this agent cannot read: "
                f"{error.errors(include_url=False)[0]['msg']}.",
                remedy="Run the same version of lowtide on the server and on the agent.",
            ) from error
        return reply

    def send_log(self, attempt_id: str, *, rank: int, offset: int, data: bytes) -> int | None:
        """Hand on a piece; output that the server does not want counts as handed on."""
        body = {
            "attempt_id": attempt_id,
            "rank": rank,
            "offset": offset,
            "data": base64.b64encode(data).decode(),
        }
        answer = self._post("logs", body)
        if answer is None:
            return None
        return int(answer.get("length", offset + len(data)))

    def close(self) -> None:
        """Hang up."""
        self._client.close()

    def _post(self, what: str, body: object) -> dict[str, Any] | None:
        try:
            answer = self._client.post(f"{self._base}/{what}", json=body)
        except httpx.TransportError:
            return None
        if answer.status_code in _REFUSED:
            raise AuthError(
                f"The server at {self._server} refuses this agent's token.",
                remedy="Give the agent's token with --token or LOWTIDE_TOKEN.",
            )
        if what == "logs" and answer.status_code in _UNWANTED:
            return {}
        if answer.status_code in _FATAL:
            raise _refusal(answer)
        if not answer.is_success:
            return None
        found: dict[str, Any] = answer.json()
        return found


def _refusal(answer: httpx.Response) -> LowtideError:
    try:
        problem = answer.json()
        cause, remedy = str(problem["cause"]), str(problem["remedy"])
    except (ValueError, KeyError, TypeError):
        cause, remedy = f"The server answered {answer.status_code}.", "Check --server."
    return LowtideError(cause, remedy=remedy)
