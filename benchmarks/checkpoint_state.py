"""The state that the checkpoint benchmark saves: a GPT-2 by its shapes, and its Adam.

148 parameters and two moments for each: 444 tensors that hold the bytes, and 148 step counts of
four bytes. Every byte is random, so nothing is equal to something else by accident.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import torch

DEFAULT_GB: Final = 1.377
"""Decimal gigabytes, as everywhere in these benchmarks; the size of the facts in the design."""
_LAYERS: Final = 12
_POSITIONS: Final = 1024
_COPIES_BYTES: Final = 3 * 4  # the parameter and two moments, in float32


@dataclass(frozen=True, slots=True)
class Training:
    """A model and its optimizer with a full state."""

    model: torch.nn.Module
    optimizer: torch.optim.Optimizer

    @property
    def tensors(self) -> list[torch.Tensor]:
        """The tensors that hold the bytes, in the order of their saving."""
        return list(_tensors([self.model.state_dict(), self.optimizer.state_dict()["state"]]))

    @property
    def length(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.nbytes for tensor in self.tensors)

    def state_dict(self) -> dict[str, Any]:
        """Return what a training script would hand to `torch.save`; nothing is copied."""
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}


class Gpt2Shaped(torch.nn.Module):
    """The parameters of a GPT-2, without its computation."""

    def __init__(self, *, width: int, words: int, generator: torch.Generator) -> None:
        """Draw every parameter from `generator`."""
        super().__init__()
        for name, shape in _shapes(width, words):
            data = torch.empty(shape).uniform_(-1, 1, generator=generator)
            self.register_parameter(name, torch.nn.Parameter(data))


def gpt2_training(gb: float = DEFAULT_GB, *, seed: int = 0, filled: bool = True) -> Training:
    """Make a training of about `gb` gigabytes; `filled=False` leaves the moments to a restore."""
    generator = torch.Generator().manual_seed(seed)
    width, words = _size(int(gb * 1e9))
    model = Gpt2Shaped(width=width, words=words, generator=generator)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, foreach=False)
    if filled:
        for parameter in model.parameters():  # one at a time: no second copy of the model
            parameter.grad = torch.empty_like(parameter).uniform_(-1, 1, generator=generator)
            optimizer.step()
            parameter.grad = None
    return Training(model, optimizer)


def _size(length: int) -> tuple[int, int]:
    """Choose a width, and the words that make up the rest."""
    parameters = length // _COPIES_BYTES
    width = 768
    while width > 64 and _count(width, width) > parameters:
        width -= 64
    words = max(width, (parameters - _count(width, 0)) // width)
    return width, words


def _count(width: int, words: int) -> int:
    return sum(torch.Size(shape).numel() for _, shape in _shapes(width, words))


def _shapes(width: int, words: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "wte", (words, width)
    yield "wpe", (_POSITIONS, width)
    for layer in range(_LAYERS):
        for name, shape in _block(width):
            yield f"h{layer}_{name}", shape
    yield "ln_f_weight", (width,)
    yield "ln_f_bias", (width,)


def _block(width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    for name, shape in {
        "ln_1": (width,),
        "attn_qkv": (3 * width, width),
        "attn_out": (width, width),
        "ln_2": (width,),
        "mlp_in": (4 * width, width),
        "mlp_out": (width, 4 * width),
    }.items():
        yield f"{name}_weight", shape
        yield f"{name}_bias", shape[:1]


def _tensors(tree: object) -> Iterator[torch.Tensor]:
    if isinstance(tree, torch.Tensor):
        yield tree
    elif isinstance(tree, dict):
        yield from _tensors(list(tree.values()))
    elif isinstance(tree, list | tuple):
        for item in tree:
            yield from _tensors(item)
