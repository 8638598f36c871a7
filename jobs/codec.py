"""Dataclasses to canonical JSON and back: one codec for journal, rows, notices and intents.

Encoding is orjson with sorted keys (equal values give equal bytes, which the journal hash
relies on); decoding validates through pydantic.
"""

from __future__ import annotations

from decimal import Decimal
from functools import cache
from typing import Any

import orjson
from pydantic import BaseModel, TypeAdapter


def encode(value: object) -> bytes:
    """Give the canonical JSON bytes of a dataclass, a model or plain data."""
    return orjson.dumps(value, default=_plain, option=orjson.OPT_SORT_KEYS)


def to_data(value: object) -> Any:  # noqa: ANN401 - JSON data
    """Give a value as plain JSON data (dict, list, str, int ...)."""
    return orjson.loads(encode(value))


def decode(data: bytes | str, *, into: Any) -> Any:  # noqa: ANN401
    """Read canonical JSON into a dataclass or a union of dataclasses told apart by ``kind``.

    Raises:
        pydantic.ValidationError: the data does not have that shape.
    """
    return _adapter(into).validate_json(data)


def from_data(data: object, *, into: Any) -> Any:  # noqa: ANN401
    """Read plain data (already parsed JSON) into a dataclass or union.

    Raises:
        pydantic.ValidationError: the data does not have that shape.
    """
    return _adapter(into).validate_python(data)


@cache
def _adapter(into: Any) -> TypeAdapter[Any]:  # noqa: ANN401
    return TypeAdapter(into)


def _plain(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Decimal):
        return str(value)
    raise TypeError(type(value).__name__)
