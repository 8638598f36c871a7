"""Every random generator that training draws from: Python, NumPy, torch CPU and each GPU."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from checkpointing.digest import digest_state
from checkpointing.errors import corrupt


def capture_rng() -> dict[str, object]:
    """Return the state of all global generators; drawing nothing from them."""
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(),  # noqa: NPY002 - the global generator is the point
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if _cuda_in_use() else [],
    }


def apply_rng(state: Mapping[str, Any]) -> None:
    """Set all global generators to `state`; a GPU that is not here any more is passed over."""
    try:
        random.setstate(state["python"])
        np.random.set_state(state["numpy"])  # noqa: NPY002
        torch.set_rng_state(state["torch"])
        for device, saved in enumerate(state["cuda"][: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(saved, device)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise corrupt("the random state", why=str(error)) from error


def derived_rng(state: Mapping[str, Any], *, rank: int) -> dict[str, object]:
    """Return generators for a rank that did not exist when rank 0's `state` was saved.

    They are seeded by BLAKE3 of that state and the rank: the same at every resume from it.
    """
    seed = int(digest_state({"from": state, "rank": rank})[:15], 16)
    twister = np.random.MT19937(seed).state
    place = (twister["bit_generator"], twister["state"]["key"], twister["state"]["pos"], 0, 0.0)
    generator = torch.Generator().manual_seed(seed)
    return {
        "python": random.Random(seed).getstate(),
        "numpy": place,
        "torch": generator.get_state(),
        "cuda": [_cuda_state(device, seed) for device in range(len(state["cuda"]))],
    }


def _cuda_state(device: int, seed: int) -> torch.Tensor:
    return torch.Generator(f"cuda:{device}").manual_seed(seed).get_state()


def _cuda_in_use() -> bool:
    # Asking an unused CUDA for its state would initialise it on every GPU.
    return torch.cuda.is_available() and bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]
