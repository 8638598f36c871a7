"""The safetensors file format, as far as writing goes. Pure.

Eight bytes (little-endian) with the length of a JSON header, the header, then all bytes. Written
from the format's description at https://github.com/huggingface/safetensors; the header is padded
with spaces so that the data begins at a multiple of 8.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

_DTYPES: Final[Mapping[str, tuple[str, int]]] = {
    "torch.bool": ("BOOL", 1),
    "torch.uint8": ("U8", 1),
    "torch.int8": ("I8", 1),
    "torch.float8_e4m3fn": ("F8_E4M3", 1),
    "torch.float8_e5m2": ("F8_E5M2", 1),
    "torch.int16": ("I16", 2),
    "torch.uint16": ("U16", 2),
    "torch.float16": ("F16", 2),
    "torch.bfloat16": ("BF16", 2),
    "torch.int32": ("I32", 4),
    "torch.uint32": ("U32", 4),
    "torch.float32": ("F32", 4),
    "torch.int64": ("I64", 8),
    "torch.uint64": ("U64", 8),
    "torch.float64": ("F64", 8),
    "torch.complex64": ("C64", 8),
    "numpy:|b1": ("BOOL", 1),
    "numpy:|u1": ("U8", 1),
    "numpy:|i1": ("I8", 1),
    "numpy:<i2": ("I16", 2),
    "numpy:<u2": ("U16", 2),
    "numpy:<f2": ("F16", 2),
    "numpy:<i4": ("I32", 4),
    "numpy:<u4": ("U32", 4),
    "numpy:<f4": ("F32", 4),
    "numpy:<i8": ("I64", 8),
    "numpy:<u8": ("U64", 8),
    "numpy:<f8": ("F64", 8),
    "numpy:<c8": ("C64", 8),
}
_ALIGNMENT: Final = 8


@dataclass(frozen=True, slots=True)
class Column:
    """One tensor of a file, as the header describes it."""

    dtype: str
    shape: tuple[int, ...]
    length: int


def column(dtype: str, *, shape: tuple[int, ...], length: int) -> Column:
    """Describe a tensor; a dtype that the format has not is written as its bytes (`U8`)."""
    name, size = _DTYPES.get(dtype, ("U8", 0))
    if size * math.prod(shape) == length and size:
        return Column(name, shape, length)
    return Column("U8", (length,), length)


def plan_file(
    columns: Mapping[str, Column], *, metadata: Mapping[str, str]
) -> tuple[bytes, dict[str, int]]:
    """Return the file's first bytes, and where in the file each tensor begins."""
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    starts = {}
    at = 0
    for name, one in columns.items():
        starts[name] = at
        span = [at, at + one.length]
        header[name] = {"dtype": one.dtype, "shape": list(one.shape), "data_offsets": span}
        at += one.length
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    head = struct.pack("<Q", len(text)) + text
    return head, {name: len(head) + start for name, start in starts.items()}
