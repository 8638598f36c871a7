"""What every JobStore promises, on each that is shipped."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise

import pytest

from jobs.codec import encode
from jobs.errors import FencedError
from jobs.fold import replay
from jobs.hash_chain import broken_links
from jobs.ledger.entries import Entry, EntryKind
from jobs.reasons import Reason
from jobs.state import State
from jobs.states import AttemptState, JobState
from jobs.store import MAX_AMOUNT, JobStore
from tests.builders import START_US, History, a_job, an_entry

HOLDER = "server-1"


def leading(store: JobStore) -> int:
    """Lead a store that nobody leads, and give the epoch."""
    epoch = store.acquire_leadership(HOLDER, now_us=0, ttl_us=1_000)
    assert epoch is not None
    return epoch


def a_busy_day() -> History:
    """A history that touches every table and leaves jobs queued, running, ended."""
    history = History().flavor("h100-od-eu", limit=3).ready("node-1").ready("node-2")
    history.submit(a_job("job-1").gpus(4, nodes=2).deadline("6h").team("vision"))
    history.submit(a_job("job-2").asking(tags={"model": "m"}, env={"A": "ü\n"}).key("key-2"))
    history.submit("job-3")
    history.train("job-1", "node-1", "node-2").save("job-1/1", step=40)
    history.end("job-1/1", AttemptState.EVICTED, reason=Reason.EVICTED).requeue("job-1")
    history.gone("node-2", reason=Reason.EVICTED).train("job-1", "node-1")
    return history.train("job-2", "node-1").finish("job-2")


def assert_same(one: State, other: State) -> None:
    """Both states have the same rows and indexes."""
    for name in ("jobs", "attempts", "leases", "nodes", "flavors", "seq"):
        assert getattr(one, name) == getattr(other, name), name
    for name in ("queued", "live_attempts", "live_nodes"):
        assert getattr(one, name) == getattr(other, name), name
    holders = ({k: list(v) for k, v in state.node_leases.items() if v} for state in (one, other))
    assert next(holders) == next(holders)


def untouched(store: JobStore) -> bool:
    """Whether a store holds neither rows nor records nor entries."""
    return not (store.load().jobs or any(store.records()) or any(store.entries()))


class TestLeadership:
    """One leader at a time, and each new one with a higher epoch."""

    def test_a_second_holder_waits_for_the_end_of_the_lease(self, store: JobStore) -> None:
        """The lease is exclusive until it expires, then the next epoch begins."""
        assert store.acquire_leadership("a", now_us=0, ttl_us=100) == 1
        assert store.acquire_leadership("b", now_us=99, ttl_us=100) is None
        assert store.acquire_leadership("b", now_us=100, ttl_us=100) == 2
        assert store.acquire_leadership("a", now_us=150, ttl_us=100) is None

    def test_renewing_keeps_the_epoch_and_moves_the_end(self, store: JobStore) -> None:
        """A leader that renews, even late, goes on with its epoch."""
        assert store.acquire_leadership("a", now_us=0, ttl_us=100) == 1
        assert store.acquire_leadership("a", now_us=90, ttl_us=100) == 1
        assert store.acquire_leadership("b", now_us=180, ttl_us=100) is None
        assert store.acquire_leadership("a", now_us=500, ttl_us=100) == 1

    def test_a_released_lease_is_free_at_once(self, store: JobStore) -> None:
        """A clean stop costs no waiting, and only the holder can release."""
        store.acquire_leadership("a", now_us=0, ttl_us=100)
        store.release_leadership("b")
        assert store.acquire_leadership("b", now_us=1, ttl_us=100) is None
        store.release_leadership("a")
        assert store.acquire_leadership("b", now_us=1, ttl_us=100) == 2
        store.release_leadership("b")
        assert store.acquire_leadership("b", now_us=2, ttl_us=100) == 3

    def test_a_fenced_leader_writes_nothing(self, store: JobStore) -> None:
        """After a takeover the old leader's tick is refused whole, the new one's is taken."""
        old = store.acquire_leadership("a", now_us=0, ttl_us=100)
        new = store.acquire_leadership("b", now_us=100, ttl_us=100)
        assert old is not None
        assert new is not None
        batch = History().submit(a_job().key("k")).batch(an_entry())
        with pytest.raises(FencedError) as caught:
            store.commit(batch, epoch=old)
        assert "epoch 1" in caught.value.cause
        assert untouched(store)
        assert store.job_by_key("k") is None
        store.commit(batch, epoch=new)
        assert store.last_seq() == 1

    @pytest.mark.parametrize("epoch", [0, 1, 7])
    def test_nobody_writes_without_having_led(self, store: JobStore, epoch: int) -> None:
        """An epoch that was never given out is refused."""
        with pytest.raises(FencedError):
            store.commit(History().submit().batch(), epoch=epoch)
        assert untouched(store)

    def test_of_many_that_want_to_lead_one_does(self, store: JobStore) -> None:
        """Concurrent candidates get one epoch between them."""
        won: list[int] = []

        def run_for(name: str) -> None:
            epoch = store.acquire_leadership(name, now_us=0, ttl_us=100)
            won.extend([epoch] if epoch else [])

        threads = [threading.Thread(target=run_for, args=(f"s{i}",)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=30)
        assert won == [1]


class TestCommit:
    """A tick is written whole or not at all."""

    def test_an_empty_store_loads_empty(self, store: JobStore) -> None:
        """A new installation has no past."""
        assert_same(store.load(), State())
        assert store.last_seq() == 0
        assert not store.counts_by_state()

    def test_what_was_committed_is_loaded_and_replayed(self, store: JobStore) -> None:
        """Rows in the store, rows in memory and the fold of the journal are the same."""
        epoch, history = leading(store), a_busy_day()
        store.commit(history.batch(), epoch=epoch)
        assert list(store.records()) == history.records
        assert_same(store.load(), history.state)
        assert_same(store.load(), replay(store.records()))

    def test_ticks_add_up(self, store: JobStore) -> None:
        """A history in many ticks, each row changed again and again, loads as its end."""
        epoch, history = leading(store), History().ready("node-1")
        store.commit(history.batch(), epoch=epoch)
        for number in range(1, 6):
            history.submit(f"job-{number}").train(f"job-{number}", "node-1")
            store.commit(history.batch(), epoch=epoch)
            history.finish(f"job-{number}")
            store.commit(history.batch(), epoch=epoch)
            assert_same(store.load(), history.state)
        assert store.last_seq() == len(history.records)

    def test_an_empty_tick_is_fine(self, store: JobStore) -> None:
        """Nothing happened, nothing is written."""
        store.commit(History().batch(), epoch=leading(store))
        assert untouched(store)

    def test_the_loaded_state_is_the_callers_own(self, store: JobStore) -> None:
        """What a caller does to a loaded state, or to its own, changes nothing in the store."""
        epoch, history = leading(store), History().submit()
        store.commit(history.batch(), epoch=epoch)
        before = store.load()
        history.submit("job-2")
        store.load().jobs.clear()
        assert list(store.load().jobs) == ["job-1"] == list(before.jobs)

    @pytest.mark.parametrize("skipped", [0, 2])
    def test_a_gap_in_the_journal_is_a_bug(self, store: JobStore, skipped: int) -> None:
        """Records must follow on the last one: neither again nor with one left out."""
        epoch, history = leading(store), History().submit().submit("job-2")
        store.commit(history.batch(), epoch=epoch)
        batch = history.submit("job-3").batch(an_entry())
        wrong = tuple(replace(record, seq=2 + skipped) for record in batch.records)
        with pytest.raises(AssertionError, match="record"):
            store.commit(replace(batch, records=wrong), epoch=epoch)
        assert store.last_seq() == 2
        assert "job-3" not in store.load().jobs
        assert not list(store.entries())

    def test_an_idempotency_key_names_its_job(self, store: JobStore) -> None:
        """The job of an earlier submit is found by key, as it is now; others are not."""
        epoch, history = leading(store), History().submit(a_job().key("k")).submit("job-2")
        store.commit(history.batch(), epoch=epoch)
        assert store.job_by_key("k") == history.state.jobs["job-1"]
        store.commit(history.finish("job-1", JobState.CANCELLED).batch(), epoch=epoch)
        assert store.job_by_key("k") == history.state.jobs["job-1"]
        assert store.job_by_key("other") is None
        assert store.job_by_key("") is None

    def test_an_idempotency_key_used_twice_is_a_bug(self, store: JobStore) -> None:
        """Two jobs with one key are refused, in one tick and over two."""
        epoch, history = leading(store), History().submit(a_job().key("k"))
        store.commit(history.batch(), epoch=epoch)
        with pytest.raises(AssertionError, match="used twice"):
            store.commit(history.submit(a_job("job-2").key("k")).batch(), epoch=epoch)
        twice = History().submit(a_job("a").key("x")).submit(a_job("b").key("x")).batch()
        with pytest.raises(AssertionError):
            store.commit(twice, epoch=epoch)
        assert list(store.load().jobs) == ["job-1"]


class TestJournal:
    """The past in order."""

    def test_pages(self, store: JobStore) -> None:
        """Any page is the same slice of the whole."""
        epoch, history = leading(store), a_busy_day()
        store.commit(history.batch(), epoch=epoch)
        for after in (0, 3, len(history.records), 10_000):
            for limit in (0, 1, 7, None):
                end = None if limit is None else after + limit
                found = list(store.records(after_seq=after, limit=limit))
                assert found == history.records[after:end]

    def test_a_subjects_story(self, store: JobStore) -> None:
        """One subject's records, in order, from anywhere on."""
        epoch, history = leading(store), a_busy_day()
        store.commit(history.batch(), epoch=epoch)
        story = [record for record in history.records if record.subject == "job-1"]
        assert list(store.records(subject="job-1")) == story
        assert list(store.records(subject="job-1", after_seq=story[1].seq, limit=2)) == story[2:4]
        assert not list(store.records(subject="nobody"))

    def test_more_than_a_page(self, store: JobStore) -> None:
        """Reading does not end, repeat or skip where a page ends."""
        epoch, history = leading(store), History()
        for number in range(2_001):
            history.submit(f"job-{number}")
        store.commit(history.batch(), epoch=epoch)
        assert [record.seq for record in store.records()] == list(range(1, 2_002))
        assert len(list(store.records(limit=1_500))) == 1_500
        assert len(list(store.records(limit=2_000))) == 2_000


class TestLedger:
    """Entries are posted once, balanced, and never change."""

    def post(self, store: JobStore, *entries: Entry) -> None:
        """Commit a tick of nothing but entries."""
        epoch = store.acquire_leadership(HOLDER, now_us=0, ttl_us=1_000)
        assert epoch is not None
        store.commit(History().batch(*entries), epoch=epoch)

    def test_entries_come_back_in_posting_order(self, store: JobStore) -> None:
        """Not in the order of their ids, nodes or times."""
        entries = [an_entry("b", hour=1), an_entry("a", hour=2, shares={"j/1": 5}), an_entry("c")]
        self.post(store, *entries[:2])
        self.post(store, entries[2])
        assert list(store.entries()) == entries

    def test_posting_again_is_ignored(self, store: JobStore) -> None:
        """The same fact any number of times, even within a tick, is one entry."""
        one, two = an_entry(hour=0), an_entry(hour=1)
        self.post(store, one, one)
        self.post(store, one, two, one)
        assert list(store.entries()) == [one, two]

    def test_posting_something_else_under_the_same_id_is_a_bug(self, store: JobStore) -> None:
        """An id names one fact; the whole tick is refused, what was there stays."""
        one = an_entry(usd_nanos=100)
        self.post(store, one)
        with pytest.raises(AssertionError, match="other contents"):
            self.post(store, an_entry(hour=1), an_entry(usd_nanos=101))
        assert list(store.entries()) == [one]

    def test_two_contents_under_one_id_in_a_tick_are_a_bug(self, store: JobStore) -> None:
        """The promise holds inside a tick as well; nothing of it is written."""
        with pytest.raises(AssertionError, match="other contents"):
            self.post(store, an_entry(usd_nanos=100), an_entry(usd_nanos=101))
        assert untouched(store)

    def test_an_unbalanced_entry_is_a_bug(self, store: JobStore) -> None:
        """Legs add up to zero or the tick is refused."""
        one = an_entry()
        lame = replace(one, postings=one.postings[:1])
        with pytest.raises(AssertionError, match="unbalanced"):
            self.post(store, an_entry("node-2"), lame)
        assert untouched(store)

    def test_amounts_up_to_64_bits_are_exact(self, store: JobStore) -> None:
        """The greatest amount comes back to the nano; one more is refused, not wrapped."""
        most = an_entry("node-1", usd_nanos=MAX_AMOUNT)
        self.post(store, most)
        assert list(store.entries()) == [most]
        with pytest.raises(AssertionError, match="too big"):
            self.post(store, an_entry("node-2", usd_nanos=MAX_AMOUNT + 1))
        assert list(store.entries()) == [most]

    def test_entries_by_attempt_and_node(self, store: JobStore) -> None:
        """Filters give what touches any attempt, or the node, each entry once and in order."""
        entries = [
            an_entry("n1", hour=0, shares={"j/1": 5, "k/1": 7}),
            an_entry("n2", hour=0, shares={"j/1": 5}),
            an_entry("n2", hour=1, shares={"k/1": 5}),
            an_entry("n3", hour=1),
        ]
        self.post(store, *entries)

        def found(attempts: Iterable[str] | None = None, node: str | None = None) -> list[int]:
            got = store.entries(attempt_ids=attempts, node_id=node)
            return [entries.index(entry) for entry in got]

        assert found() == [0, 1, 2, 3]
        assert found(["j/1"]) == [0, 1]
        assert found(["k/1", "j/1"]) == [0, 1, 2]
        assert found(node="n2") == [1, 2]
        assert found(["k/1"], "n2") == [0, 1, 2]
        assert found([]) == []
        assert found(["nobody/1"]) == []
        assert found([f"x/{i}" for i in range(1_200)] + ["j/1"]) == [0, 1]

    def test_the_chain_is_the_same_in_every_store(self, store: JobStore) -> None:
        """One link per entry over its canonical bytes, each following the one before."""
        entries = [an_entry(hour=hour, shares={"j/1": hour}) for hour in range(3)]
        self.post(store, *entries[:1])
        self.post(store, *entries[1:])
        links = list(store.chain())
        assert [link.body for link in links] == [encode(entry).decode() for entry in entries]
        assert broken_links(links) == []
        assert links[-1].hash.startswith("a19423182f0b0dc2")

    def test_billed_until_is_the_end_of_the_last_usage(self, store: JobStore) -> None:
        """Per node, by time and not by posting; other kinds of entries bill nothing."""
        later, sooner = an_entry("n1", hour=3), an_entry("n1", hour=1)
        moved = an_entry("n2", hour=5, kind=EntryKind.RECLASS)
        self.post(store, later, sooner, moved)
        assert store.billed_until(["n1", "n2", "n3"]) == {"n1": later.end_us}
        assert store.billed_until([]) == {}


class TestReading:
    """What readers find."""

    def test_jobs_are_paged_newest_first(self, store: JobStore) -> None:
        """Walking by cursor gives every job once, ties in the order of ids."""
        epoch, history = leading(store), History()
        for number in range(25):
            history.now_us = START_US + number // 3
            history.submit(f"job-{number:02}")
        store.commit(history.batch(), epoch=epoch)
        seen: list[tuple[int, str]] = []
        after = None
        while page := store.jobs(after=after, limit=4):
            assert len(page) <= 4
            seen += [(row.submitted_us, row.id) for row in page]
            after = seen[-1]
        assert len(seen) == 25
        assert all(one > other for one, other in pairwise(seen))

    def test_jobs_by_state_and_team(self, store: JobStore) -> None:
        """Filters hold together and with the cursor; a job is found where it is now."""
        epoch, history = leading(store), History()
        for number in range(6):
            history.submit(a_job(f"job-{number}").team("ab"[number % 2]))
        store.commit(history.batch(), epoch=epoch)
        history.finish("job-0", JobState.CANCELLED).finish("job-1", JobState.CANCELLED)
        store.commit(history.batch(), epoch=epoch)

        def ids(**query: object) -> list[str]:
            return [row.id[-1] for row in store.jobs(**query)]  # type: ignore[arg-type]

        assert ids(states=[JobState.CANCELLED]) == ["1", "0"]
        assert ids(team="a") == ["4", "2", "0"]
        assert ids(team="a", states=[JobState.QUEUED]) == ["4", "2"]
        assert ids(team="a", after=(history.state.jobs["job-4"].submitted_us, "job-4")) == [
            "2",
            "0",
        ]
        assert ids(states=[JobState.QUEUED, JobState.CANCELLED], limit=2) == ["5", "4"]
        assert ids(states=[JobState.FAILED]) == []
        assert store.counts_by_state() == {JobState.QUEUED: 4, JobState.CANCELLED: 2}

    def test_any_text_that_people_send_is_kept(self, store: JobStore) -> None:
        """NUL, emoji and quotes in names and keys break neither a write nor a search."""
        epoch, odd = leading(store), "a b'\"\\%_\N{ROCKET}"
        key = f"{odd}\0\n"
        asked = a_job().team(odd).key(key).asking(tags={odd: odd}, args=[f"{odd}\n"])
        history = History().submit(asked)
        store.commit(history.batch(), epoch=epoch)
        assert store.jobs(team=odd) == [history.state.jobs["job-1"]]
        assert store.job_by_key(key) == history.state.jobs["job-1"]
        assert list(store.records()) == history.records

    def test_single_rows(self, store: JobStore) -> None:
        """Each row is found by its id, with everything it says, and no other is."""
        epoch, history = leading(store), a_busy_day()
        store.commit(history.batch(), epoch=epoch)
        state = history.state
        assert all(store.job(name) == row for name, row in state.jobs.items())
        assert all(store.attempt(name) == row for name, row in state.attempts.items())
        assert all(store.lease(name) == row for name, row in state.leases.items())
        assert [store.job("x"), store.attempt("x"), store.lease("x")] == [None] * 3

    def test_rows_in_order(self, store: JobStore) -> None:
        """Attempts by number, nodes by age, flavors by name."""
        epoch, history = leading(store), a_busy_day()
        store.commit(history.batch(), epoch=epoch)
        assert [row.number for row in store.attempts("job-1")] == [1, 2]
        assert store.attempts("job-3") == []
        assert [row.id for row in store.nodes()] == ["node-1"]
        assert [row.id for row in store.nodes(live_only=False)] == ["node-1", "node-2"]
        assert [row.name for row in store.flavors()] == ["a100-spot-eu", "h100-od-eu"]

    def test_readers_see_whole_ticks_while_the_leader_writes(self, store: JobStore) -> None:
        """Threads that load at any moment find rows, journal and indexes of one instant."""
        epoch, history, done = leading(store), History().ready("node-1"), threading.Event()
        problems: list[str] = []
        loads: list[int] = []

        def read() -> None:
            while not done.is_set():
                state = store.load()
                loads.append(state.seq)
                # Each tick below adds one job in two records, after the node's five.
                if len(state.jobs) * 2 != max(0, state.seq - 5):
                    problems.append(f"{len(state.jobs)} jobs at {state.seq}")

        readers = [threading.Thread(target=read) for _ in range(3)]
        for reader in readers:
            reader.start()
        store.commit(history.batch(), epoch=epoch)
        for number in range(40):
            history.submit(f"job-{number}").finish(f"job-{number}", JobState.CANCELLED)
            store.commit(history.batch(), epoch=epoch)
        done.set()
        for reader in readers:
            reader.join(timeout=30)
        assert not problems
        assert loads
        assert_same(store.load(), replay(store.records()))


class TestLogs:
    """Output by byte offset: sent again, cut anywhere, never doubled."""

    def test_appending_is_idempotent(self, store: JobStore) -> None:
        """Overlap with what is there is ignored, the rest is kept."""
        assert store.append_log("a/1", rank=0, offset=0, data=b"hello ") == 6
        assert store.append_log("a/1", rank=0, offset=0, data=b"hello ") == 6
        assert store.append_log("a/1", rank=0, offset=3, data=b"lo world") == 11
        assert store.append_log("a/1", rank=0, offset=2, data=b"ll") == 11
        assert store.append_log("a/1", rank=0, offset=11, data=b"") == 11
        assert store.read_log("a/1", rank=0) == b"hello world"

    def test_a_gap_is_refused(self, store: JobStore) -> None:
        """Data beyond the end leave the stream as it was, and tell its length."""
        assert store.append_log("a/1", rank=0, offset=1, data=b"x") == 0
        store.append_log("a/1", rank=0, offset=0, data=b"ab")
        assert store.append_log("a/1", rank=0, offset=3, data=b"x") == 2
        assert store.read_log("a/1", rank=0) == b"ab"

    def test_reading_any_slice(self, store: JobStore) -> None:
        """A slice over several appends is the slice of the whole."""
        whole = bytes(range(256)) * 3
        for offset in range(0, len(whole), 100):
            store.append_log("a/1", rank=0, offset=offset, data=whole[offset : offset + 100])
        for offset in (0, 1, 99, 100, 101, 250, 767, 768, 9_999):
            for limit in (0, 1, 100, 333, 10_000):
                got = store.read_log("a/1", rank=0, offset=offset, limit=limit)
                assert got == whole[offset : offset + limit], (offset, limit)

    def test_streams_are_apart(self, store: JobStore) -> None:
        """Ranks and attempts have a stream each; lengths are told by rank."""
        store.append_log("a/1", rank=0, offset=0, data=b"zero")
        store.append_log("a/1", rank=10, offset=0, data=b"\0\xff")
        store.append_log("a/2", rank=0, offset=0, data=b"other")
        store.append_log("a/2", rank=1, offset=5, data=b"beyond a gap")
        assert store.read_log("a/1", rank=10) == b"\0\xff"
        assert store.read_log("a/1", rank=3) == b""
        assert store.log_lengths("a/1") == {0: 4, 10: 2}
        assert store.log_lengths("a/2") == {0: 5}
        assert store.log_lengths("nobody/1") == {}

    def test_two_that_send_the_same_stream(self, store: JobStore) -> None:
        """Concurrent senders of the same bytes, cut differently, leave them once."""
        whole = bytes(i % 251 for i in range(2_000))

        def send(size: int) -> None:
            kept = 0
            while kept < len(whole):
                kept = store.append_log("a/1", rank=0, offset=kept, data=whole[kept : kept + size])

        threads = [threading.Thread(target=send, args=(size,)) for size in (70, 110, 130)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=30)
        assert store.read_log("a/1", rank=0) == whole
