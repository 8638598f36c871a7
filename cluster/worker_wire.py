"""The wire between the agent and its attempt workers: JSON lines over TCP. Pure.

A worker opens the connection and says ``Hello`` with its attempt's token. News carry a ``seq``
and are kept by the worker until ``Ack``; output is kept in its spool until ``Kept``. So nothing
is lost while the agent is away, and everything may be said twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from checkpointing.hazard_posterior import Risk
from jobs.codec import decode, encode
from jobs.spec import JobSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOrder:
    """What a worker needs to do its part of an attempt."""

    attempt_id: str
    job_id: str
    epoch: int
    index: int  # of its node in the gang
    nodes: int
    spec: JobSpec
    storage: str  # URI of checkpoints and code archives
    agent_host: str
    agent_port: int
    token: str
    host: str = "127.0.0.1"  # how the other workers reach this one

    @property
    def ranks(self) -> range:
        """The global ranks that run here."""
        per_node = self.spec.processes
        return range(self.index * per_node, (self.index + 1) * per_node)

    @property
    def world_size(self) -> int:
        """Ranks of the whole gang."""
        return self.nodes * self.spec.processes


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """First line of every connection; ``master_port`` is free on this node."""

    kind: Literal["hello"] = "hello"
    attempt_id: str
    index: int
    token: str
    host: str
    master_port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """Nothing to say, but alive."""

    kind: Literal["beat"] = "beat"


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """A training child said something; ``message`` is a line of ``checkpointing.control``."""

    kind: Literal["said"] = "said"
    seq: int
    at_us: int
    rank: int
    message: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exited:
    """A training child is gone, with everything that it started."""

    kind: Literal["exited"] = "exited"
    seq: int
    at_us: int
    rank: int
    code: int  # negative: the signal that ended it
    tail: str  # the last lines that it wrote


@dataclass(frozen=True, slots=True, kw_only=True)
class Unable:
    """The children could not be started (no code, no script)."""

    kind: Literal["unable"] = "unable"
    seq: int
    at_us: int
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """A piece of what a rank wrote: base64, starting at byte ``offset``."""

    kind: Literal["output"] = "output"
    rank: int
    offset: int
    data: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Go:
    """All workers are there: start the children, meeting at this address."""

    kind: Literal["go"] = "go"
    host: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """Save and leave by ``deadline_us``; what still runs then is killed."""

    kind: Literal["drain"] = "drain"
    deadline_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Advise:
    """What is known of evictions and price now; the children pace their saves by it."""

    kind: Literal["advise"] = "advise"
    risk: Risk


@dataclass(frozen=True, slots=True, kw_only=True)
class Hurry:
    """An eviction is near: save at the next step boundary."""

    kind: Literal["hurry"] = "hurry"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """Kill the children now."""

    kind: Literal["stop"] = "stop"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ack:
    """News up to ``seq`` are kept."""

    kind: Literal["ack"] = "ack"
    seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """The first ``length`` bytes of a rank's output are kept."""

    kind: Literal["kept"] = "kept"
    rank: int
    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Bye:
    """The attempt is over: flush the output and end."""

    kind: Literal["bye"] = "bye"


News = Said | Exited | Unable
FromWorker = Hello | Beat | Said | Exited | Unable | Output
FromAgent = Go | Drain | Advise | Hurry | Stop | Ack | Kept | Bye
# A line without a kind must not pass for the first message that has no fields.
_FROM_WORKER = Annotated[FromWorker, Field(discriminator="kind")]
_FROM_AGENT = Annotated[FromAgent, Field(discriminator="kind")]


def to_line(message: FromWorker | FromAgent) -> bytes:
    """Give the message as one line."""
    return encode(message) + b"\n"


def from_worker(line: bytes) -> FromWorker:
    """Read a line of a worker.

    Raises:
        pydantic.ValidationError: it is none.
    """
    message: FromWorker = decode(line, into=_FROM_WORKER)
    return message


def from_agent(line: bytes) -> FromAgent:
    """Read a line of the agent.

    Raises:
        pydantic.ValidationError: it is none.
    """
    message: FromAgent = decode(line, into=_FROM_AGENT)
    return message
