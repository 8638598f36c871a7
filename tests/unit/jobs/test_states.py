"""The machines of jobs, attempts and nodes refuse what is not in their tables."""

from __future__ import annotations

from enum import StrEnum
from itertools import product

import pytest

from jobs.errors import LowtideError
from jobs.reasons import HELP, Reason
from jobs.states import (
    ATTEMPT_EDGES,
    JOB_EDGES,
    NODE_EDGES,
    AttemptState,
    JobState,
    NodeState,
    check_move,
)

MACHINES: list[tuple[type[StrEnum], frozenset]] = [
    (JobState, JOB_EDGES),
    (AttemptState, ATTEMPT_EDGES),
    (NodeState, NODE_EDGES),
]
PAIRS = [(pair, pair in edges) for kind, edges in MACHINES for pair in product(kind, kind)]


@pytest.mark.parametrize(("pair", "legal"), PAIRS, ids=str)
def test_only_listed_moves_are_legal(pair: tuple[StrEnum, StrEnum], legal: bool) -> None:
    """Each pair of each machine: in the table or refused with the story."""
    if legal:
        check_move(*pair, story="")
    else:
        with pytest.raises(AssertionError, match="its whole story"):
            check_move(*pair, story="its whole story")


def test_every_reason_has_a_sentence() -> None:
    """What a user is shown is never just a code."""
    assert set(HELP) == set(Reason)
    assert all(text and text[0].islower() and not text.endswith(".") for text in HELP.values())


def test_errors_have_codes_of_their_own() -> None:
    """Scripts tell errors apart by code; each is a client's or a server's status."""
    kinds = LowtideError.__subclasses__()
    assert len({kind.code for kind in kinds}) == len(kinds) > 5
    assert all(400 <= kind.http_status < 600 for kind in kinds)
    error = kinds[0]("Cause.", remedy="Remedy.")
    assert (str(error), error.cause, error.remedy) == ("Cause. Remedy.", "Cause.", "Remedy.")
