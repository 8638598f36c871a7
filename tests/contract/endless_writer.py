"""A leader that commits ticks until it is killed: ``python -m ... URL HOLDER``."""

from __future__ import annotations

import sys

from jobs.states import JobState
from jobs.store_open import open_store
from tests.builders import History, an_entry


def main(url: str, holder: str) -> None:
    """Commit one job and one entry per tick, from where the store's journal ends."""
    store = open_store(url)
    epoch = store.acquire_leadership(holder, now_us=int(holder), ttl_us=0)
    assert epoch is not None
    history = History()
    history.state, history.records = store.load(), list(store.records())
    history.batch()
    while True:
        number = len(history.records) // 2
        history.submit(f"job-{number}").finish(f"job-{number}", JobState.CANCELLED)
        store.commit(history.batch(an_entry(hour=number)), epoch=epoch)


if __name__ == "__main__":
    main(*sys.argv[1:])
