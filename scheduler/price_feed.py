"""A file of present prices that somebody else keeps writing: ``price_feed`` of the configuration.

The file is one JSON object, dollars per node-hour by flavor; its time of writing says how old it
is, so an old file is known as old after a restart too. A file that cannot be read, and a price that
is negative, missing or no number, change nothing: the last good price is kept and ages.
"""

from __future__ import annotations

import json
import threading
from decimal import Decimal, InvalidOperation
from pathlib import Path

import structlog

from cluster.prices import FeedPrices
from jobs.spec import NANOS_PER_USD

_log = structlog.get_logger("lowtide.prices")


class FileFeed:
    """Looks at the file now and then; the loop never waits for it."""

    def __init__(self, path: Path, *, prices: FeedPrices, every_s: float) -> None:
        """Read the file for the first time."""
        self._path, self._prices, self._every_s = path, prices, every_s
        self._written_ns = 0
        self._said: dict[str, str] = {}
        self.poll()

    def poll(self) -> None:
        """Take what the file says if it was written since the last look."""
        try:
            written_ns = self._path.stat().st_mtime_ns
            if written_ns == self._written_ns:
                return
            quotes = json.loads(self._path.read_text(encoding="utf-8"), parse_float=Decimal)
        except (OSError, ValueError) as error:
            self._say({"file": f"{self._path} cannot be read: {error}"})
            return
        self._written_ns = written_ns
        if isinstance(quotes, dict):
            nanos = {str(name): _nanos(value) for name, value in quotes.items()}
            self._prices.take(written_ns // 1_000, nanos)
            self._say(self._prices.refused)
        else:
            self._say({"file": f"{self._path} is not an object of prices by flavor"})

    def run(self, stopping: threading.Event) -> None:
        """Look until told to stop."""
        while not stopping.wait(self._every_s):
            self.poll()

    def _say(self, refused: dict[str, str]) -> None:
        for name, why in refused.items():
            if self._said.get(name) != why:
                _log.warning("a price was put aside; the last good one is kept", of=name, why=why)
        self._said = dict(refused)


def _nanos(value: object) -> object:
    """Turn dollars into nano-dollars; what is no number stays as it is, to be refused by name."""
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        return value
    try:
        return int(value * NANOS_PER_USD)
    except (InvalidOperation, ValueError, OverflowError):  # NaN, infinity
        return str(value)
