"""The demo's proofs: equal bytes after evictions, and books that tie to the nano-dollar."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scheduler.demo.cast import SCRIPT

_DIGEST = re.compile(r"weights blake3 ([0-9a-f]{64})")
_PLAIN_S = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """One claim, whether it held, and the numbers behind it."""

    claim: str
    holds: bool
    detail: str


def digest_in(log: str) -> str | None:
    """Find the digest of the final weights in a training's output."""
    found = _DIGEST.findall(log)
    return str(found[-1]) if found else None


class PlainTraining:
    """The same training, uninterrupted and outside Lowtide, as a plain process."""

    def __init__(self, args: Sequence[str]) -> None:
        """Start it."""
        self._folder = tempfile.TemporaryDirectory(prefix="lowtide-plain-")
        self._process = subprocess.Popen(
            [sys.executable, str(SCRIPT), *args],
            cwd=self._folder.name,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def digest(self) -> str | None:
        """Wait for it and give the digest of its final weights."""
        try:
            output, _ = self._process.communicate(timeout=_PLAIN_S)
        except subprocess.TimeoutExpired:
            self.stop()
            return None
        self._folder.cleanup()
        return digest_in(output)

    def stop(self) -> None:
        """End it, whatever it does."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate()
        self._folder.cleanup()


def equal_bytes(name: str, *, evictions: int, ours: str | None, plain: str | None) -> Proof:
    """Compare an evicted job's final weights with an uninterrupted training's."""
    holds = ours is not None and ours == plain and evictions > 0
    return Proof(
        claim=f"{name}: weights after {evictions} eviction(s) = uninterrupted training",
        holds=holds,
        detail=f"BLAKE3 {(ours or 'none')[:16]} {'=' if ours == plain else '!='} "
        f"{(plain or 'none')[:16]}",
    )


def books_tie(overview: dict[str, Any]) -> Proof:
    """Check that jobs + idle + overhead = the node bill, in integer nano-dollars."""
    jobs = sum(one["total"]["usd_nanos"] for one in overview["jobs"].values())
    idle, overhead = overview["idle"]["usd_nanos"], overview["overhead"]["usd_nanos"]
    bill = overview["bill"]["usd_nanos"]
    return Proof(
        claim="jobs + idle + overhead = node bill",
        holds=jobs + idle + overhead == bill and bill > 0,
        detail=f"{jobs:,} + {idle:,} + {overhead:,} = {bill:,} nano-dollars",
    )


def audit_clean(report: dict[str, Any]) -> Proof:
    """Check that the auditor found nothing."""
    findings = report.get("findings", [])
    return Proof(
        claim="lowtide audit finds nothing",
        holds=not findings,
        detail=f"{len(findings)} finding(s)" + (f": {findings[0]}" if findings else ""),
    )
