"""The loop: observe, decide, act. One writer; production and simulation drive this same class.

A tick drains the inbox and the mailbox, folds what they mean, decides, and commits records,
rows and ledger entries in ONE transaction. Only then are intents handed to the driver; they
follow from rows, so a crash in between loses nothing: ``start`` issues every open intent again.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from checkpointing.hazard_posterior import Risk
from cluster.driver import ClusterDriver
from cluster.inbox import Inbox
from cluster.intents import Intent
from jobs import events as ev
from jobs.arrays import members
from jobs.durations import US_PER_MS, US_PER_S
from jobs.errors import FencedError, LowtideError
from jobs.ledger.entries import Entry
from jobs.rows import AttemptRow, BudgetRow, JobRow, NodeRow
from jobs.state import State
from jobs.store import JobStore
from scheduler import commands as cmd
from scheduler import intake
from scheduler.budget_changes import Change, after, changes, outcome
from scheduler.budget_desk import BudgetDesk
from scheduler.catalog import Catalog
from scheduler.clock import Clock
from scheduler.decide import decide
from scheduler.enact import Enactor
from scheduler.endings import next_upkeep_us, upkeep
from scheduler.feasibility import check_submit
from scheduler.horizon_keeper import HorizonKeeper, highs
from scheduler.ids import IdSource
from scheduler.metering import Meter
from scheduler.observe import next_price_us, observe, repriced
from scheduler.open_intents import OpenIntents
from scheduler.plan import Plan
from scheduler.price_book import PriceBook
from scheduler.reconcile import reconcile
from scheduler.recorder import Recorder, subject_of
from scheduler.risk import risk_of, risks_of
from scheduler.schedule_desk import ScheduleDesk, schedule_view
from scheduler.snapshot import PolicySettings, Snapshot

LEADER_TTL_US = 10 * US_PER_S
_RENEW_US = LEADER_TTL_US // 3
_RISKS_US = 10 * US_PER_S  # how often live attempts' risks are worked out again


@dataclass(frozen=True, slots=True)
class _Answer:
    """A command's future and what will resolve it once the tick is committed."""

    future: Future[Any]
    job_ids: tuple[str, ...] = ()
    node_id: str = ""
    values: tuple[JobRow, ...] = ()  # rows that are not kept (a dry run)
    many: bool = False  # a list of rows, though it may be of one
    data: dict[str, Any] | None = None  # an answer that is no row


class Controller:
    """Drives one installation. Not thread-safe: one thread calls ``start`` and ``tick``."""

    def __init__(
        self,
        *,
        store: JobStore,
        driver: ClusterDriver,
        inbox: Inbox,
        mailbox: cmd.Mailbox,
        clock: Clock,
        ids: IdSource,
        catalog: Catalog,
        settings: PolicySettings,
        holder: str,
        horizon_wall_s: float | None = None,
    ) -> None:
        """Take the adapters of one world; nothing is read or written before ``start``."""
        self._store = store
        self._driver = driver
        self._inbox = inbox
        self._mailbox = mailbox
        self._clock = clock
        self._ids = ids
        self._catalog = catalog
        self._settings = settings
        self._holder = holder
        self.horizons = HorizonKeeper(highs(wall_s=horizon_wall_s))
        self._epoch = 0
        self._renewed_us = 0
        self._risks: Mapping[str, Mapping[str, Risk]] = MappingProxyType({})
        self._seen: Snapshot | None = None
        self._risked_us = -_RISKS_US
        self._adopt(State())

    @property
    def state(self) -> State:
        """The rows; to be read by the controller's own thread only."""
        return self._state

    @property
    def open_intents(self) -> Mapping[str, tuple[Intent, ...]]:
        """All open intents by cluster, as of the last commit. Safe from any thread."""
        return self._open.by_cluster

    @property
    def risks(self) -> Mapping[str, Mapping[str, Risk]]:
        """What was known of live attempts' evictions lately, by cluster. Safe from any thread."""
        return self._risks

    @property
    def prices(self) -> PriceBook:
        """The prices. From other threads only ``base`` and ``with_windows``, which keep nothing."""
        return self._catalog.prices

    @property
    def seen(self) -> Snapshot | None:
        """What the last cycle saw and decided on, None before the first. Safe from any thread."""
        return self._seen

    def start(self) -> bool:
        """Become the leader, load the rows and issue every open intent again.

        Returns:
            False while somebody else leads.
        """
        now_us = self._clock.now_us()
        epoch = self._store.acquire_leadership(self._holder, now_us=now_us, ttl_us=LEADER_TTL_US)
        if epoch is None:
            return False
        self._epoch, self._renewed_us = epoch, now_us
        self._adopt(self._store.load())
        tried = [
            attempt.id
            for attempt in self._state.attempts.values()
            if not self._state.jobs[attempt.job_id].ended
        ]
        self._meter.restore(
            billed_until=self._store.billed_until(self._state.live_nodes),
            entries=self._store.entries(attempt_ids=tried) if tried else (),
        )
        self._sum_budgets(row.name for row in self._state.open_budgets)
        for intent in self._open.rebuild(self._state):
            self._driver.submit(intent)
        return True

    def tick(self) -> Plan:
        """Run one cycle; see the module docstring.

        Raises:
            FencedError: another server leads now; nothing was written.
        """
        now_us = self._clock.now_us()
        self._renew(now_us)
        self._recorder.begin(now_us)
        for event in self._desk.due(self._catalog, now_us=now_us):
            self._recorder.emit(event, cause="calendar")
        self._configure_budgets(now_us)
        answers = self._take_commands(now_us)
        self._take_notices()
        for event in self._occurrences(now_us):
            self._recorder.emit(event, cause="schedule")
        for event in upkeep(self._state, now_us=now_us):
            self._recorder.emit(event, cause="upkeep")
        for crossed in list(self._desk.crossings(now_us)):
            self._recorder.emit(crossed, cause="meter")
        self._seen = self.horizons.into(self._snapshot(now_us))
        plan = decide(self._seen)
        for event in self._enactor.plan(plan, now_us=now_us):
            self._recorder.emit(event, cause="plan")
        self._commit(answers)
        return replace(plan, wake_at_us=self._wake_us(plan, now_us))

    def run(self, stop: threading.Event) -> None:
        """Tick until told to stop, at the world's pace.

        Raises:
            FencedError: leadership was lost.
        """
        while not stop.is_set():
            plan = self.tick()
            now_us = self._clock.now_us()
            self._publish_risks(now_us)
            until_us = min(plan.wake_at_us or now_us + _RENEW_US, now_us + _RENEW_US)
            self._inbox.wait(max(0, until_us - now_us) / US_PER_S)
        self._store.release_leadership(self._holder)

    # -- parts of a tick ------------------------------------------------------------------

    def _adopt(self, state: State) -> None:
        self._state = state
        self._meter = Meter(state)
        self._recorder = Recorder(state, meter=self._meter)
        self._enactor = Enactor(state, self._catalog, self._ids)
        self._open = OpenIntents(self._risk_of)
        self._desk = BudgetDesk(state, self._meter)
        self._schedules = ScheduleDesk(state, self._ids)
        self._configured = False

    def _risk_of(self, state: State, attempt: AttemptRow) -> Risk | None:
        return risk_of(state, self._catalog, attempt)

    def _publish_risks(self, now_us: int) -> None:
        if now_us - self._risked_us >= _RISKS_US:
            self._risked_us = now_us
            self._risks = MappingProxyType(risks_of(self._state, self._catalog, now_us=now_us))

    def _snapshot(self, now_us: int) -> Snapshot:
        return observe(
            self._state,
            self._catalog,
            now_us=now_us,
            settings=self._settings,
            budgets=self._desk.views(now_us),
        )

    def _renew(self, now_us: int) -> None:
        if now_us - self._renewed_us < _RENEW_US:
            return
        epoch = self._store.acquire_leadership(self._holder, now_us=now_us, ttl_us=LEADER_TTL_US)
        if epoch != self._epoch:
            raise FencedError("Another server leads now.", remedy="Nothing to do: it carries on.")
        self._renewed_us = now_us

    def _occurrences(self, now_us: int) -> Iterator[ev.Event]:
        due_us = self._schedules.next_due_us()
        if due_us is not None and due_us <= now_us:
            yield from self._schedules.due(self._snapshot(now_us))

    def _take_notices(self) -> None:
        # In the order of arrival: clocks of senders differ, and a commit that seems to come
        # after the end of its attempt would be dropped.
        for notice in self._inbox.drain():
            events = reconcile(self._state, notice, cooldown_ms=self._settings.cooldown_ms)
            for event in events:
                self._recorder.emit(event, cause=f"notice:{notice.id}")

    def _take_commands(self, now_us: int) -> list[_Answer]:
        answers = []
        keys: dict[str, str] = {}
        for command, future in self._mailbox.drain():
            try:
                answers.append(self._obey(command, future, keys, now_us))
            except LowtideError as refusal:
                future.set_exception(refusal)
        return answers

    def _obey(
        self, command: cmd.Command, future: Future[Any], keys: dict[str, str], now_us: int
    ) -> _Answer:
        if isinstance(command, cmd.Barrier):
            return _Answer(future)
        if isinstance(command, cmd.Submit | cmd.SubmitAll):
            return self._submit(command, future, keys, now_us)
        if isinstance(command, cmd.ApplyBudgets):
            return self._apply_budgets(command, future, now_us)
        if isinstance(command, cmd.ApplyWindows):
            return self._apply_windows(command, future, now_us)
        if isinstance(command, cmd.ScheduleCommand):
            return self._schedule(command, future, now_us)
        for event in list(self._enactor.command(command, now_us=now_us)):
            self._recorder.emit(event, cause=f"command:{type(command).__name__.lower()}")
        named = getattr(command, "job_id", "")
        rows = members(self._state.jobs, named)
        return _Answer(
            future,
            job_ids=tuple(row.id for row in rows),
            node_id=getattr(command, "node_id", ""),
            many=bool(rows) and rows[0].id != named,  # an array
        )

    def _schedule(self, command: cmd.ScheduleCommand, future: Future[Any], now_us: int) -> _Answer:
        if isinstance(command, cmd.MakeSchedule) and command.dry_run:
            trial = self._schedules.trial(command.spec, now_us=now_us)
            return _Answer(future, data=schedule_view(trial, now_us=now_us))
        schedule_id = getattr(command, "schedule_id", "")
        for event in list(self._schedules.command(command, now_us=now_us)):
            self._recorder.emit(event, cause=f"command:{type(command).__name__.lower()}")
            schedule_id = subject_of(event)
        row = self._state.schedules[schedule_id]
        return _Answer(future, data=schedule_view(row, now_us=now_us))

    def _submit(
        self,
        command: cmd.Submit | cmd.SubmitAll,
        future: Future[Any],
        keys: dict[str, str],
        now_us: int,
    ) -> _Answer:
        many = isinstance(command, cmd.SubmitAll)
        group = intake.as_group(command)
        known = self._known(command.idempotency_key, keys)
        if known and not command.dry_run:
            ids = intake.submitted_with(self._state.jobs[known], self._state.jobs)
            return _Answer(future, job_ids=tuple(ids), many=many)
        asked = intake.read(group, jobs=self._state.jobs, ids=self._ids)
        events = list(intake.submissions(asked, group, now_us=now_us))
        rows = intake.rows_of(events)
        check_submit(rows, snapshot=self._snapshot(now_us))
        if command.dry_run:
            return _Answer(future, values=tuple(rows), many=many)
        for event in events:
            self._recorder.emit(event, cause="command:submit")
        if command.idempotency_key:
            keys[command.idempotency_key] = rows[0].id
        return _Answer(future, job_ids=tuple(row.id for row in rows), many=many)

    def _configure_budgets(self, now_us: int) -> None:
        """Bring the budgets of the configuration up to date, once in a term."""
        if not self._configured:
            self._configured = True
            changed = list(self._desk.from_file(self._catalog.budgets, now_us=now_us))
            self._change_budgets(changed, cause="configuration")

    def _apply_windows(
        self, command: cmd.ApplyWindows, future: Future[Any], now_us: int
    ) -> _Answer:
        self._catalog.prices.use(command.windows)
        kept = ev.WindowsSet(at_us=now_us, text=command.text, by=command.by)
        events: list[ev.Event] = [kept, *repriced(self._catalog, now_us=now_us)]
        for event in events:
            self._recorder.emit(event, cause="command:windows")
        return _Answer(future, data={"applied": [window.name for window in command.windows]})

    def _apply_budgets(
        self, command: cmd.ApplyBudgets, future: Future[Any], now_us: int
    ) -> _Answer:
        found = changes(command.changes, self._desk, now_us=now_us)
        changed = {event.budget for event in found}
        rows = [row for row in after(found, self._state) if row.name in changed]
        told = outcome(
            found, self._desk, snapshot=self._snapshot(now_us), entries=self._spent_on(rows)
        )
        if not command.dry_run:
            self._change_budgets(found, cause="command:budgets")
        return _Answer(future, data=told | {"dry_run": command.dry_run})

    def _change_budgets(self, found: Sequence[Change], *, cause: str) -> None:
        for event in found:
            self._recorder.emit(event, cause=cause)
        self._sum_budgets(event.budget for event in found)

    def _sum_budgets(self, names: Iterable[str]) -> None:
        rows = [self._state.budgets[name] for name in names]
        self._meter.spending.load(rows, self._spent_on(rows))

    def _spent_on(self, rows: Sequence[BudgetRow]) -> Iterable[Entry]:
        """Give the entries that may be about some budgets, those of this tick included."""
        ids = self._meter.spending.attempts_of(rows)
        return [*(self._store.entries(attempt_ids=ids) if ids else ()), *self._recorder.entries]

    def _known(self, key: str, keys: dict[str, str]) -> str:
        if not key:
            return ""
        row = self._store.job_by_key(key)
        return row.id if row else keys.get(key, "")

    def _commit(self, answers: list[_Answer]) -> None:
        batch = self._recorder.take()
        try:
            if batch.records:
                self._store.commit(batch, epoch=self._epoch)
        except LowtideError as refusal:
            for answer in answers:
                answer.future.set_exception(refusal)
            raise
        for intent in self._open.update(self._state, batch.changes):
            self._driver.submit(intent)
        for answer in answers:
            answer.future.set_result(self._row(answer))

    def _row(self, answer: _Answer) -> dict[str, Any] | list[JobRow] | JobRow | NodeRow | None:
        if answer.data is not None:
            return answer.data
        rows = [self._state.jobs[job_id] for job_id in answer.job_ids] or list(answer.values)
        if answer.many:
            return rows
        if rows:
            return rows[0]
        return self._state.nodes[answer.node_id] if answer.node_id else None

    def _wake_us(self, plan: Plan, now_us: int) -> int | None:
        wakes = (
            plan.wake_at_us,
            next_price_us(self._state, self._catalog, now_us=now_us),
            next_upkeep_us(self._state, self._state.live_attempts),
            self._schedules.next_due_us(),
        )
        first = min((wake for wake in wakes if wake is not None), default=None)
        return None if first is None else max(first, now_us + US_PER_MS)
