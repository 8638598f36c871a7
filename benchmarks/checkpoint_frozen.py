"""The second checkpoint of a model with 95 % frozen weights: bytes sent / bytes of the whole.

Bytes are counted by the null server, as they arrive. Between the two saves every trained weight
changes. The row's optimizer has no state (SGD): then 5 % is the least that can be sent. With Adam,
whose moments exist for trained weights alone, 15/110 = 0.136 is the least; that is a detail.
"""

from __future__ import annotations

import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Any, Final

import torch

from benchmarks.checkpoint_measure import Bar, Row, attempt, rounded, with_cause
from benchmarks.checkpoint_ours import ours, with_environment
from benchmarks.checkpoint_state import Training
from benchmarks.null_s3 import NullS3, null_s3

BAR = Bar("at most", 0.08, "1.0: every save sends everything")
_BLOCKS: Final = 20  # one of them, the last, is trained: 5 %
_TENSORS: Final = 4

Saves = Callable[[Training, str], AbstractContextManager[Callable[[], object]]]


def frozen(*, gb: float) -> Row:
    """Measure the row with weights of `gb`."""
    with ExitStack() as stack:
        server = stack.enter_context(null_s3())
        stack.enter_context(with_environment(server.environment()))
        shares: dict[str, float | None] = {}
        details: dict[str, Any] = {}
        for name, saves in {"ours": _ours, "DCP fsspec": _dcp}.items():
            for adam in (False, True):
                do = partial(_share, saves, server, name=name.split()[0], gb=gb, adam=adam)
                share, error = attempt(do)
                details[f"{name}, Adam" if adam else name] = {
                    "sent_over_full": rounded(share),
                    **({"error": error} if error else {}),
                }
                if not adam:
                    shares[name] = share
        row = Row(
            name="frozen",
            what="second checkpoint of a model with 95 % frozen weights, bytes sent / full",
            bar=BAR,
            ours=shares.pop("ours"),
            peers=shares,
            details=details,
            notes=["SGD, so 0.05 is the least possible; with Adam it is 0.136"],
        )
        missed = f"chunks around the trained weights were sent again: {details['ours']}"
        return row if row.passed else with_cause(row, missed)


def _share(saves: Saves, server: NullS3, *, name: str, gb: float, adam: bool) -> float:
    training = _training(gb, adam=adam)
    least = sum(parameter.nbytes for parameter in training.model.parameters())
    seen = [received(server)]
    with saves(training, f"s3://null/{name}-{adam}") as save:
        for _ in range(2):
            _train(training)
            save()
            seen.append(received(server))
    full = seen[1] - seen[0]
    assert full >= least, "the first save did not send everything"
    return (seen[2] - seen[1]) / full


def _training(gb: float, *, adam: bool) -> Training:
    side = int((gb * 1e9 / 4 / _BLOCKS / _TENSORS) ** 0.5)
    layers = [torch.nn.Linear(side, side, bias=False) for _ in range(_BLOCKS * _TENSORS)]
    model = torch.nn.Sequential(*layers)
    model.requires_grad_(requires_grad=False)
    trained = [layer.weight.requires_grad_() for layer in layers[-_TENSORS:]]
    kind = torch.optim.Adam if adam else torch.optim.SGD
    return Training(model, kind(trained, lr=1e-3))


def _train(training: Training) -> None:
    """Take one step with random gradients; every trained weight and moment changes."""
    for parameter in training.model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.rand_like(parameter)
    training.optimizer.step()
    training.optimizer.zero_grad(set_to_none=True)


@contextmanager
def _ours(training: Training, uri: str) -> Iterator[Callable[[], object]]:
    with ours(training, uri, environment={}) as mine:
        yield lambda: mine.save(changed=False)


@contextmanager
def _dcp(training: Training, uri: str) -> Iterator[Callable[[], object]]:
    from benchmarks import checkpoint_dcp as dcp

    yield lambda: dcp.save(training, dcp.fsspec_writer(uri))


def received(server: NullS3) -> int:
    """Return the bytes of all bodies that the server has taken in."""
    with urllib.request.urlopen(f"{server.endpoint_url}/?received") as answer:  # noqa: S310 - ours
        return int(answer.read())
