"""Every order in which the requests of several actors can reach one store.

Each actor is a function over its own view of a shared store. A view stops before each request that
matters until the schedule lets it go; between two requests an actor runs alone. `explore` runs the
actors once for every possible schedule, depth first, so nothing depends on luck or time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from typing_extensions import Buffer

from checkpointing.errors import CheckpointError
from checkpointing.keys import StoredObject
from checkpointing.memory_storage import MemoryStorage

Actor = Callable[[MemoryStorage], Any]


class _Ended(BaseException):
    """The exploration gave up: an actor's thread must not stay behind."""


class _Turns:
    """Lets one actor at a time do one request."""

    def __init__(self, count: int) -> None:
        self._changed = threading.Condition()
        self._waiting: set[int] = set()
        self._over: set[int] = set()
        self._go: int | None = None
        self._count = count

    def wait(self, actor: int) -> None:
        """As an actor: stop until it is our turn."""
        with self._changed:
            self._waiting.add(actor)
            self._changed.notify_all()
            if not self._changed.wait_for(lambda: self._go == actor, timeout=20):
                raise _Ended
            self._go = None

    def end(self, actor: int) -> None:
        """As an actor: there are no more requests."""
        with self._changed:
            self._over.add(actor)
            self._changed.notify_all()

    def ready(self) -> tuple[int, ...]:
        """As the schedule: wait until nobody runs; return who has a request."""
        with self._changed:
            settled = self._changed.wait_for(
                lambda: self._go is None and len(self._waiting | self._over) == self._count,
                timeout=20,
            )
            assert settled, "an actor hangs"
            return tuple(sorted(self._waiting))

    def let(self, actor: int) -> None:
        """As the schedule: let this actor's request through."""
        with self._changed:
            self._waiting.discard(actor)
            self._go = actor
            self._changed.notify_all()


class View(MemoryStorage):
    """One actor's view: the shared objects, and a stop before each request that matters.

    Reading an object and a job's log are not: what is read never changes, and a commit that was
    found to be safe stays so. Neither is what a sweep does when it is done.
    """

    def __init__(self, shared: MemoryStorage, turns: _Turns, actor: int) -> None:
        """Look at `shared`."""
        super().__init__()
        self._objects = shared._objects
        self._lock = shared._lock
        self._turns = turns
        self._actor = actor
        self._done = False

    def put(self, key: str, data: Buffer, *, crc32c: int | None = None) -> None:
        """Wait for our turn, then store."""
        self._wait(key)
        super().put(key, data, crc32c=crc32c)
        self._done = self._done or key.endswith(".done")

    def put_if_absent(self, key: str, data: Buffer) -> bool:
        """Wait for our turn, then store."""
        self._wait(key)
        return super().put_if_absent(key, data)

    def list(self, prefix: str) -> tuple[StoredObject, ...]:
        """Wait for our turn, then list."""
        self._wait(prefix)
        return super().list(prefix)

    def delete(self, key: str) -> None:
        """Wait for our turn, then delete."""
        self._wait(key)
        super().delete(key)

    def _wait(self, key: str) -> None:
        if not self._done and "/commits/" not in key:
            self._turns.wait(self._actor)


def once(
    actors: Sequence[Actor], shared: MemoryStorage, choose: Callable[[tuple[int, ...]], int]
) -> list[Any]:
    """Run the actors once over `shared`, by the schedule of `choose`; errors are results."""
    turns = _Turns(len(actors))
    results: list[Any] = [None] * len(actors)

    def act(number: int) -> None:
        try:
            results[number] = actors[number](View(shared, turns, number))
        except CheckpointError as error:
            results[number] = error
        finally:
            turns.end(number)

    threads = [threading.Thread(target=act, args=(n,), daemon=True) for n in range(len(actors))]
    for thread in threads:
        thread.start()
    while ready := turns.ready():
        turns.let(choose(ready))
    for thread in threads:
        thread.join(timeout=20)
    return results


def explore(
    actors: Sequence[Actor], base: MemoryStorage
) -> Iterator[tuple[list[int], MemoryStorage, list[Any]]]:
    """Yield (schedule, store, results) of every schedule, each from a copy of `base`."""
    prefix: list[int] = []
    while True:
        path: list[tuple[int, tuple[int, ...]]] = []

        def choose(
            ready: tuple[int, ...],
            path: list[tuple[int, tuple[int, ...]]] = path,
            prefix: Sequence[int] = tuple(prefix),
        ) -> int:
            place = len(path)
            chosen = prefix[place] if place < len(prefix) else ready[0]
            assert chosen in ready, "an actor did not repeat itself"
            path.append((chosen, ready))
            return chosen

        shared = copied(base)
        results = once(actors, shared, choose)
        yield [chosen for chosen, _ in path], shared, results
        while path and path[-1][0] == path[-1][1][-1]:
            path.pop()
        if not path:
            return
        last, ready = path[-1]
        prefix = [chosen for chosen, _ in path[:-1]] + [ready[ready.index(last) + 1]]


def copied(base: MemoryStorage) -> MemoryStorage:
    """A store with the same objects."""
    made = MemoryStorage()
    made._objects.update(base._objects)
    return made
