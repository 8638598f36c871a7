"""The files that a scenario names: step series of limits and prices, and tables of jobs.

A series is a CSV (its ``column`` is named), a JSON list, an object with a ``data`` list, or an
object from which ``key`` picks a list. ``.gz`` and ``.xz`` are unpacked on the way. Every
problem is a ``FileFormatError`` that names file, line or element, and field.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import lzma
import zlib
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any

from jobs.errors import FileFormatError

_UNPACK = {".gz": gzip.decompress, ".xz": lzma.decompress}
_READ_ERRORS = (OSError, EOFError, ValueError, lzma.LZMAError, zlib.error)
_NAMED = 20  # names in a remedy
_SHOWN = 60  # characters of a wrong value
_MOST = 100_000  # nodes of a flavor, or dollars of a node-hour


def read_text(path: Path) -> str:
    """Read a text file, unpacked if its name says so.

    Raises:
        FileFormatError: it does not exist or cannot be unpacked or decoded.
    """
    try:
        return _UNPACK.get(path.suffix, bytes)(path.read_bytes()).decode("utf-8-sig")
    except _READ_ERRORS as error:
        raise FileFormatError(
            f"{path} cannot be read: {error}.",
            remedy="Correct the path (it is relative to the scenario file) or restore the file.",
        ) from error


def parse_json(text: str, *, source: str) -> Any:  # noqa: ANN401 - JSON data
    """Parse JSON with exact decimals.

    Raises:
        FileFormatError: it is not JSON; names the line.
    """
    try:
        return json.loads(text, parse_float=Decimal)
    except json.JSONDecodeError as error:
        raise FileFormatError(
            f"{source}, line {error.lineno}: not JSON: {error.msg}.",
            remedy="Correct the syntax there.",
        ) from error
    except (ValueError, RecursionError) as error:  # too many digits, too deep
        raise FileFormatError(
            f"{source}: not JSON that can be read: {error}.", remedy="Write it simpler."
        ) from error


def _parsed(path: Path) -> Any:  # noqa: ANN401 - JSON data, or the rows of a CSV
    try:
        seen = path.stat()
    except (OSError, ValueError):
        return read_text(path)  # it says what is wrong
    return _parsed_as_of(path, seen.st_mtime_ns, seen.st_size)


@lru_cache(maxsize=16)  # one file often holds the series of many flavors
def _parsed_as_of(path: Path, _mtime_ns: int, _size: int) -> Any:  # noqa: ANN401
    text = read_text(path)
    if path.name.removesuffix(path.suffix if path.suffix in _UNPACK else "").endswith(".csv"):
        return read_table(text, source=str(path))
    return parse_json(text, source=str(path))


def read_table(text: str, *, source: str) -> list[dict[str, str]]:
    """Read a CSV with a header; row ``i`` stands on line ``i + 2``.

    Raises:
        FileFormatError: there is no header, it names a column twice, or a row is longer or
            shorter than it.
    """
    try:
        rows = list(csv.reader(io.StringIO(text)))
    except csv.Error as error:
        raise FileFormatError(f"{source}: not CSV: {error}.", remedy="Correct the file.") from error
    if not rows or not rows[0]:
        raise FileFormatError(f"{source} is empty.", remedy="Give it a header and rows.")
    header, body = rows[0], [row for row in rows[1:] if row]
    twice = [name for index, name in enumerate(header) if name in header[:index]]
    if twice:
        cause = f"{source}, line 1: there are two columns called '{twice[0]}'."
        raise FileFormatError(cause, remedy="Rename one of them.")
    for index, row in enumerate(body):
        if len(row) != len(header):
            raise FileFormatError(
                f"{source}, line {index + 2}: {len(row)} fields under {len(header)} columns.",
                remedy="Give every row as many fields as the header has.",
            )
    return [dict(zip(header, row, strict=True)) for row in body]


def as_prices(shape: Sequence[Decimal], *, mean_usd: Decimal) -> list[Decimal]:
    """Turn the shape of a tariff, wholesale power say, into prices of a node with a given mean.

    A negative value counts as 0: nobody is paid for renting a GPU. The rest is scaled so that its
    mean over the whole series is ``mean_usd``; a shape of zeros alone stays at that mean.
    """
    kept = [max(Decimal(0), value) for value in shape]
    total = sum(kept)
    if not total:
        return [mean_usd] * len(kept)
    return [value * mean_usd * len(kept) / total for value in kept]


def read_series(
    path: Path, *, column: str | None, key: str | None, signed: bool = False
) -> list[Decimal]:
    """Read one series of numbers, one per step; ``signed`` allows negative ones.

    Raises:
        FileFormatError: it cannot be found in the file, is empty, or holds something that is
            not a number of at least 0.
    """
    data = _parsed(path)
    values = _column(data, column, path=path) if _is_table(data) else _list(data, key, path=path)
    if not values:
        raise FileFormatError(f"{path} holds no value.", remedy="Give it one value per step.")
    first = 2 if _is_table(data) else 1
    what = "line" if first == 2 else "element"  # noqa: PLR2004 - a header is line 1
    return [
        _number(
            value,
            where=f"{path}, {what} {index + first}, field '{column or key or 'data'}'",
            signed=signed,
        )
        for index, value in enumerate(values)
    ]


def own_step_s(path: Path) -> Decimal | None:
    """Give the step that a trace states itself (``metadata.gap_seconds``), None without one."""
    data = _parsed(path)
    meta = data.get("metadata") if isinstance(data, Mapping) else None
    gap = meta.get("gap_seconds") if isinstance(meta, Mapping) else None
    where = f"{path}, field 'metadata.gap_seconds'"
    return _number(gap, where=where, signed=False) if gap is not None else None


def _is_table(data: object) -> bool:
    return isinstance(data, list) and bool(data) and isinstance(data[0], dict)


def _column(rows: Sequence[Mapping[str, str]], column: str | None, *, path: Path) -> list[str]:
    known = list(rows[0])
    if column is None or column not in known:
        raise FileFormatError(
            f"{path}, line 1: there is no column '{column or ''}'.",
            remedy=_nearest(column or "", known, how="column"),
        )
    return [row[column] for row in rows]


def _list(data: object, key: str | None, *, path: Path) -> list[Any]:
    if isinstance(data, Mapping):
        name = key if key is not None else "data"
        if name not in data:
            raise FileFormatError(
                f"{path}: there is no series '{name}'.",
                remedy=_nearest(name, [str(one) for one in data], how="key"),
            )
        data = data[name]
    if not isinstance(data, list):
        raise FileFormatError(
            f"{path}: field '{key or 'data'}' is not a list of numbers.",
            remedy="Give a JSON list, or an object with a `data` list.",
        )
    return data


def _nearest(name: str, known: Sequence[str], *, how: str) -> str:
    near = get_close_matches(name, known, n=1)
    hint = f"Did you mean '{near[0]}'? " if near else ""
    more = ", ..." if len(known) > _NAMED else ""
    return f"{hint}Name one with `{how}`: {', '.join(known[:_NAMED])}{more}."


def _number(value: object, *, where: str, signed: bool) -> Decimal:
    try:
        number = Decimal(str(value).strip())
    except InvalidOperation:
        number = Decimal("NaN")
    if isinstance(value, bool) or not number.is_finite() or (number < 0 and not signed):
        least = "" if signed else " of at least 0"
        raise FileFormatError(
            f"{where}: {_short(value)} is not a number{least}.", remedy="Correct the value there."
        )
    if abs(number) > _MOST:
        raise FileFormatError(
            f"{where}: {_short(value)} is more than {_MOST:,}.", remedy="Correct the value there."
        )
    return number


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."
