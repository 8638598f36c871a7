"""How the rows of `benchmarks.checkpoint` are measured: by turns, beside a base, with the load.

A row has a base (a memcpy, a plain socket), ours and the named peers. They run by turns, forwards
and then backwards, so that a slow minute of the machine hits all of them; a figure is the median
of the ratios to the base of the SAME round. A peer that fails is reported with its error.
"""

from __future__ import annotations

import os
import re
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, Final, Literal, TypeVar

import psutil

_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_SAMPLE_S: Final = 0.005
_TOP: Final = 5
_PROFILED: Final = 8  # runs, of short ones
_PROFILED_S: Final = 1.0
T = TypeVar("T")
_TIMED: Final = threading.Event()
"""Set while `timed` is at work: a profile looks only then."""

Better = Literal["at most", "at least"]


@dataclass(frozen=True, slots=True)
class Bar:
    """What a row should reach, and what others reached when the bar was set."""

    better: Better
    value: float
    reference: str

    def passed(self, figure: float) -> bool:
        """Say whether `figure` is at or beyond the bar."""
        return figure <= self.value if self.better == "at most" else figure >= self.value

    def ratio(self, seconds: float, base_s: float) -> float:
        """Give cost / base where less is better, speed / the base's speed where more is."""
        return seconds / base_s if self.better == "at most" else base_s / seconds


@dataclass(frozen=True, slots=True)
class Contender:
    """One way to do a row's work. `once` does it and returns the seconds that count."""

    name: str
    once: Callable[[], float]
    how: str = ""
    """Parallelism, durability, checksums: what a reader needs to compare fairly."""


@dataclass(slots=True)
class Taken:
    """The repetitions of one contender; `error` says why there are none, or no more."""

    seconds: list[float] = field(default_factory=list)
    rounds: list[int] = field(default_factory=list)
    other_cores: list[float] = field(default_factory=list)
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A finished row of the table."""

    name: str
    what: str
    bar: Bar
    ours: float | None
    peers: Mapping[str, float | None]
    details: Mapping[str, Any]
    """Seconds, load and remarks by contender, as they go into the JSON."""
    cause: str = ""
    """For a miss: where the time or the memory went, out of this run's own profile."""
    notes: Sequence[str] = ()

    @property
    def passed(self) -> bool:
        """Whether ours is at or beyond the bar."""
        return self.ours is not None and self.bar.passed(self.ours)

    def to_json(self) -> dict[str, Any]:
        """Return the row as plain data."""
        return {
            "row": self.name,
            "what": self.what,
            "bar": f"{self.bar.better} {self.bar.value:g}",
            "reference": self.bar.reference,
            "ours": rounded(self.ours),
            "pass": self.passed,
            "cause": self.cause,
            "peers": {name: rounded(value) for name, value in self.peers.items()},
            "notes": list(self.notes),
            "details": dict(self.details),
        }


def rounded(value: float | None) -> float | None:
    """Round to three digits after the point; None stays."""
    return None if value is None else round(value, 3)


# --------------------------------------------------------------------------------- load


def _busy_s() -> float:
    """Seconds that all cores together have worked since boot (proc(5), /proc/stat)."""
    fields = [
        int(text) for text in Path("/proc/stat").read_text("ascii").split("\n", 1)[0].split()[1:]
    ]
    user, nice, system, _idle, _iowait, irq, softirq, steal = fields[:8]
    return (user + nice + system + irq + softirq + steal) / _TICKS_PER_S


@dataclass(slots=True)
class Load:
    """What the machine did meanwhile, in cores."""

    other_cores: float = 0.0
    """Work outside this process: the server, helpers of the contender, strangers."""


@contextmanager
def load_meter() -> Iterator[Load]:
    """Measure the load of a `with` block."""
    load = Load()
    wall, busy, mine = perf_counter(), _busy_s(), sum(os.times()[:2])
    yield load
    wall_s = max(perf_counter() - wall, 1 / _TICKS_PER_S)
    own_s = sum(os.times()[:2]) - mine
    load.other_cores = max(0.0, (_busy_s() - busy - own_s) / wall_s)


# ----------------------------------------------------------------------------- by turns


def timed(do: Callable[[], object]) -> float:
    """Return the seconds that `do` takes."""
    _TIMED.set()
    began = perf_counter()
    try:
        do()
        return perf_counter() - began
    finally:
        _TIMED.clear()


def by_turns(contenders: Sequence[Contender], *, repeats: int) -> dict[str, Taken]:
    """Warm each contender up once, then run all of them `repeats` times, order reversed each time.

    Whoever fails drops out with its error; the others go on.
    """
    taken = {one.name: Taken() for one in contenders}
    for number in range(-1, repeats):
        order = contenders if number % 2 else list(reversed(contenders))
        for one in order:
            if not taken[one.name].error:
                _take(one, taken[one.name], number=number)
    return taken


def _take(one: Contender, taken: Taken, *, number: int) -> None:
    with load_meter() as load:
        seconds, taken.error = attempt(one.once)
    if seconds is not None and number >= 0:  # the first time warms up
        taken.seconds.append(seconds)
        taken.rounds.append(number)
        taken.other_cores.append(load.other_cores)
    print(f"  {one.name}: {taken.error or f'{seconds:.3f} s'}", file=sys.stderr, flush=True)


def attempt(do: Callable[[], T]) -> tuple[T | None, str]:
    """Return the result and no error, or None and the error in words."""
    try:
        return do(), ""
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001 - a peer fails as it likes; DCP's derive from here
        # Of a traceback in the message, only its end: what went wrong, and no path of this machine.
        words = str(error).strip().splitlines()[-1:]
        return None, ": ".join((type(error).__name__, *words))[:300]


def against_base(taken: Mapping[str, Taken], *, base: str, bar: Bar) -> dict[str, float | None]:
    """Give each contender's median ratio to the base of the same round; None if it has none."""
    bases = dict(zip(taken[base].rounds, taken[base].seconds, strict=True))
    return {
        name: median(
            bar.ratio(seconds, bases[number])
            for number, seconds in zip(one.rounds, one.seconds, strict=True)
        )
        if one.seconds
        else None
        for name, one in taken.items()
        if name != base
    }


def details(taken: Mapping[str, Taken], contenders: Sequence[Contender]) -> dict[str, Any]:
    """Describe every contender's repetitions for the JSON."""
    how = {one.name: one.how for one in contenders}
    return {
        name: {
            "how": how.get(name, ""),
            "median_s": rounded(median(one.seconds)) if one.seconds else None,
            "seconds": [rounded(value) for value in one.seconds],
            "other_cores": rounded(median(one.other_cores)) if one.other_cores else None,
            **({"error": one.error} if one.error else {}),
        }
        for name, one in taken.items()
    }


def row_of(
    *,
    name: str,
    what: str,
    bar: Bar,
    contenders: Sequence[Contender],
    repeats: int,
    ours: str = "ours",
    notes: Sequence[str] = (),
) -> Row:
    """Measure a row whose first contender is the base; profile ours if it misses the bar."""
    taken = by_turns(contenders, repeats=repeats)
    ratios = against_base(taken, base=contenders[0].name, bar=bar)
    figure = ratios.pop(ours)
    found = Row(
        name=name,
        what=what,
        bar=bar,
        ours=figure,
        peers=ratios,
        details=details(taken, contenders),
        notes=notes,
    )
    if found.passed:
        return found
    mine = next(one for one in contenders if one.name == ours)
    return with_cause(found, taken[ours].error or profile_of(mine.once))


def with_cause(row: Row, cause: str) -> Row:
    """Return `row` with what a profile says."""
    return Row(
        name=row.name,
        what=row.what,
        bar=row.bar,
        ours=row.ours,
        peers=row.peers,
        details=row.details,
        cause=cause,
        notes=row.notes,
    )


# ------------------------------------------------------------------------------ profile


def profile_of(once: Callable[[], float]) -> str:
    """Run `once` again under a sampler; say where its threads were and which processes worked.

    Threads are sampled by their Python frame while `timed` is at work, so C code counts for the
    line that called it, and the main thread's waits count too; CPU time is counted per process,
    this one's descendants included.
    """
    before, began = process_cpu_s(), perf_counter()
    seconds: list[float] = []
    with _sampled() as places:
        while len(seconds) < _PROFILED and sum(seconds) < _PROFILED_S:
            found, error = attempt(once)
            if found is None:
                return error
            seconds.append(found)
    wall_s = perf_counter() - began
    cpu = process_cpu_s()
    cores = {name: (cpu[name] - before.get(name, 0.0)) / wall_s for name in cpu}
    total = max(1, sum(places.values()))
    spent = places.most_common(_TOP)
    where = ", ".join(f"{100 * count / total:.0f} % {place}" for place, count in spent)
    worked = ", ".join(f"{name} {value:.2f}" for name, value in cores.items() if value >= 0.02)
    runs = f"{len(seconds)} more runs, median {median(seconds):.3f} s"
    return f"{runs}: thread time {where}; cores used: {worked or 'none'}"


def process_cpu_s() -> dict[str, float]:
    """Return the CPU seconds of this process and of each descendant, by what it runs."""
    found: dict[str, float] = {"this process": sum(os.times()[:2])}
    for child in psutil.Process().children(recursive=True):
        try:
            spent, name = child.cpu_times(), _process_name(child)
        except psutil.Error:
            continue  # it ended just now
        found[name] = found.get(name, 0.0) + spent.user + spent.system
    return found


def _process_name(process: psutil.Process) -> str:
    words = process.cmdline()
    modules = re.findall(r"(?:benchmarks|checkpointing)\.\w+", " ".join(words))
    return modules[0] if modules else Path(words[0]).name if words else process.name()


@contextmanager
def _sampled() -> Iterator[Counter[str]]:
    places: Counter[str] = Counter()
    done = threading.Event()

    def look() -> None:
        me = threading.get_ident()
        while not done.wait(_SAMPLE_S):
            for ident, frame in sys._current_frames().items():  # noqa: SLF001 - its documented home
                place = f"{Path(frame.f_code.co_filename).name}:{frame.f_code.co_name}"
                idle = place in _IDLE and ident != threading.main_thread().ident
                if ident != me and _TIMED.is_set() and not idle:
                    places[place] += 1

    sampler = threading.Thread(target=look, daemon=True)
    sampler.start()
    try:
        yield places
    finally:
        done.set()
        sampler.join()


_IDLE: Final = frozenset({"thread.py:_worker", "threading.py:wait", "selectors.py:select"})
"""Where a pool's thread waits for work; in the main thread it is a wait for the work itself."""
