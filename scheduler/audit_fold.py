"""The auditor's own reading of the journal: plain JSON events in, plain JSON rows out.

It shares no code with ``jobs`` on purpose: its tables of legal moves and its rules are written
down a second time, so that a mistake would have to be made twice to go unseen. Everything here
is plain data; instants are integer microseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from scheduler import audit_budgets, audit_schedules
from scheduler.audit_rows import Row, catch_up, new_attempt, new_job

Told = Iterator[str]  # what is wrong, one sentence each

_ENDS = {"succeeded", "failed", "cancelled"}
_ATTEMPT_ENDS = {"succeeded", "failed", "evicted", "preempted", "lost"}
_LIVE = ("leased", "starting", "restoring", "training", "draining")

_LEGAL: dict[str, dict[str, set[str]]] = {
    "jobs": {
        "queued": {"admitted", "cancelled"},
        "admitted": {"running", "queued", "succeeded", "failed", "cancelled"},
        "running": {"queued", "succeeded", "failed", "cancelled"},
    },
    "attempts": {
        "leased": {"starting", "draining"},
        "starting": {"restoring", "training", "draining", "succeeded"},
        "restoring": {"training", "draining", "succeeded"},
        "training": {"draining", "succeeded"},
        "draining": {"succeeded"},
    },
    "nodes": {
        "requested": {"booting", "ready", "gone"},
        "booting": {"ready", "draining", "gone"},
        "ready": {"draining", "gone"},
        "draining": {"gone"},
    },
}
for _state in _LIVE:
    _LEGAL["attempts"][_state] |= {"failed", "evicted", "preempted", "lost"}

_KEPT_LEVELS = 96  # changes of a flavor's limit
_COUNTED = {
    "evicted": "evictions",
    "lost": "evictions",
    "preempted": "preemptions",
    "failed": "failures",
}
_OWN_COUNTER = {"launch-failed": "launch_failures", "heartbeat-lost": "lost"}


class Fold:
    """Rows by table and id, as the journal tells them, and what each step did wrong."""

    def __init__(self) -> None:
        """Start with nothing."""
        self.rows: dict[str, dict[str, Row]] = {
            "jobs": {},
            "attempts": {},
            "leases": {},
            "nodes": {},
            "flavors": {},
            "budgets": {},
            "schedules": {},
        }
        self.prices: dict[str, list[tuple[int, int, int]]] = {}  # (from, paid, listed) by flavor
        self.open: dict[str, dict[str, None]] = {}  # node -> open leases
        self.money: list[Row] = []  # the events that budgets are audited by
        self.seq = 0

    def apply(self, record: Row) -> Told:
        """Fold one record in and tell what is wrong with it."""
        if record["seq"] != self.seq + 1:
            yield f"record {record['seq']} follows {self.seq}"
        self.seq = record["seq"]
        event = record["event"]
        if event["kind"] in audit_budgets.WATCHED:
            self.money.append(event)
        kind = event["kind"]
        handler = (
            _HANDLERS.get(kind) or audit_budgets.handler(kind) or audit_schedules.handler(kind)
        )
        if handler is None:
            yield f"unknown kind of event {event['kind']!r}"
            return
        try:
            yield from handler(self, event)
        except KeyError as missing:
            yield f"{event['kind']} is about {missing}, which does not exist"

    def _move(self, table: str, row_id: str, to: str, at_us: int) -> Told:
        row = self.rows[table][row_id]
        if to not in _LEGAL[table].get(row["state"], ()):
            yield f"{row_id} moved from {row['state']} to {to}"
        if table == "jobs" and row["state"] == "queued":
            row["waited_ms"] += max(0, at_us - row["queued_us"]) // 1_000
        row["state"] = to
        if table != "attempts":
            row["changed_us"] = at_us

    def _touch(self, node_id: str, at_us: int) -> None:
        node = self.rows["nodes"][node_id]
        idle = node["state"] == "ready" and not self.open.get(node_id)
        node["idle_since_us"] = at_us if idle else None

    # -- jobs -----------------------------------------------------------------------------

    def _submitted(self, e: Row) -> Told:
        if e["job_id"] in self.rows["jobs"]:
            yield f"job {e['job_id']} was submitted twice"
        self.rows["jobs"][e["job_id"]] = new_job(e)

    def _quoted(self, e: Row) -> Told:
        if e["job_id"] not in self.rows["jobs"]:
            yield f"a quote for job {e['job_id']}, which does not exist"

    def _windows(self, e: Row) -> Told:
        if not e["text"]:
            yield "price windows were set to no text"

    def _deferred(self, e: Row) -> Told:
        self.rows["jobs"][e["job_id"]] |= {"reason": e["reason"], "sentence": e["sentence"]}
        yield from ()

    def _held(self, e: Row) -> Told:
        self.rows["jobs"][e["job_id"]]["held"] = e["held"]
        yield from ()

    def _cancel_requested(self, e: Row) -> Told:
        self.rows["jobs"][e["job_id"]]["cancel_requested"] = True
        yield from ()

    def _requeued(self, e: Row) -> Told:
        job = self.rows["jobs"][e["job_id"]]
        yield from self._move("jobs", e["job_id"], "queued", e["at_us"])
        job |= {"reason": e["reason"], "sentence": e["sentence"], "queued_us": e["at_us"]}
        job |= {"attempt_id": "", "step": (job["restore_point"] or {"step": 0})["step"]}

    def _job_ended(self, e: Row) -> Told:
        job = self.rows["jobs"][e["job_id"]]
        yield from self._move("jobs", e["job_id"], e["state"], e["at_us"])
        job |= {"reason": e["reason"], "sentence": e["sentence"]}
        job |= {"attempt_id": "", "ended_us": e["at_us"]}

    # -- attempts -------------------------------------------------------------------------

    def _leased(self, e: Row) -> Told:
        job = self.rows["jobs"][e["job_id"]]
        yield from self._lease_faults(e, job)
        self.rows["leases"][e["lease_id"]] = {
            "id": e["lease_id"],
            "granted_us": e["at_us"],
            "released_us": None,
        } | {name: e[name] for name in ("attempt_id", "node_ids", "gpu_milli", "cpus", "token")}
        before = self.rows["attempts"].get(f"{e['job_id']}/{e['number'] - 1}")
        reached = max(before["step"], before["reached"]) if before else 0
        self.rows["attempts"][e["attempt_id"]] = new_attempt(e) | {"reached": reached}
        for node_id in e["node_ids"]:
            self.open.setdefault(node_id, {})[e["lease_id"]] = None
            yield from self._overfull(node_id)
            self._touch(node_id, e["at_us"])
        yield from self._move("jobs", e["job_id"], "admitted", e["at_us"])
        job |= {name: e[name] for name in ("attempt_id", "reason", "sentence")}
        job["attempts"] = e["number"]
        job["on_safety_net"] = job["on_safety_net"] or e["reason"] == "safety-net"

    def _lease_faults(self, e: Row, job: Row) -> Told:
        attempt_id, node_ids = e["attempt_id"], e["node_ids"]
        wrong = (
            (attempt_id in self.rows["attempts"], "got a second lease"),
            (e["lease_id"] in self.rows["leases"], f"was granted {e['lease_id']} once more"),
            (bool(job["attempt_id"]), f"started beside the live {job['attempt_id']}"),
            (e["number"] != job["attempts"] + 1, f"is out of turn after {job['attempts']}"),
            (len(set(node_ids)) != len(node_ids), f"got a node twice: {node_ids}"),
            (len(node_ids) != job["spec"]["nodes"], f"got {len(node_ids)} nodes"),
        )
        yield from (f"{attempt_id} {what}" for is_so, what in wrong if is_so)
        for node_id in node_ids:
            if self.rows["nodes"][node_id]["state"] == "gone":
                yield f"{attempt_id} was placed on {node_id}, which is gone"

    def _overfull(self, node_id: str) -> Told:
        node = self.rows["nodes"][node_id]
        leases = [self.rows["leases"][lease] for lease in self.open[node_id]]
        for unit in ("gpu_milli", "cpus"):
            held = sum(lease[unit] for lease in leases)
            if held > node[unit]:
                yield f"{held} {unit} are held on {node_id}, which has {node[unit]}"

    def _attempt_moved(self, e: Row) -> Told:
        attempt = self.rows["attempts"][e["attempt_id"]]
        job = self.rows["jobs"][attempt["job_id"]]
        yield from self._move("attempts", e["attempt_id"], e["state"], e["at_us"])
        attempt["reason"] = e["reason"]
        if e["state"] == "starting":
            attempt["started_us"] = e["at_us"]
            yield from self._move("jobs", job["id"], "running", e["at_us"])
        elif e["state"] == "training":
            attempt |= {"training_us": e["at_us"], "first_step": e["step"], "step": e["step"]}
            catch_up(attempt, e["at_us"])
            job |= {"step": e["step"], "total_steps": e["total_steps"] or job["total_steps"]}
        elif e["state"] == "draining":
            attempt |= {"draining_us": e["at_us"], "drain_deadline_us": e["deadline_us"]}

    def _opened(self, e: Row) -> Told:
        names = ("process_us", "opened_us", "standby")
        self.rows["attempts"][e["attempt_id"]] |= {name: e[name] for name in names}
        yield from ()

    def _silent(self, e: Row) -> Told:
        self.rows["attempts"][e["attempt_id"]]["silent_us"] = e["silent_us"]
        yield from ()

    def _progressed(self, e: Row) -> Told:
        attempt = self.rows["attempts"][e["attempt_id"]]
        attempt["step"] = e["step"]
        catch_up(attempt, e["at_us"])
        job = self.rows["jobs"][attempt["job_id"]]
        job |= {"step": e["step"], "total_steps": e["total_steps"]}
        job["work_ms"] = e["work_ms"] or job["work_ms"]
        yield from ()

    def _committed(self, e: Row) -> Told:
        attempt = self.rows["attempts"][e["attempt_id"]]
        job = self.rows["jobs"][attempt["job_id"]]
        before = job["restore_point"]
        if attempt["state"] in _ATTEMPT_ENDS:
            yield f"{e['attempt_id']} committed after its end"
        if before is not None and before["epoch"] > attempt["number"]:
            yield f"{e['attempt_id']} committed over its successor"
        attempt["last_snapshot_us"] = e["snapshot_us"]
        attempt["stall_us"] += e["stall_us"]
        attempt["saves"] += 1
        job["restore_point"] = {
            "step": e["step"],
            "snapshot_us": e["snapshot_us"],
            "committed_us": e["at_us"],
            "manifest": e["manifest"],
            "epoch": attempt["number"],
        }

    def _attempt_ended(self, e: Row) -> Told:
        attempt = self.rows["attempts"][e["attempt_id"]]
        job = self.rows["jobs"][attempt["job_id"]]
        yield from self._move("attempts", e["attempt_id"], e["state"], e["at_us"])
        attempt |= {name: e[name] for name in ("reason", "exit_code", "detail")}
        attempt["ended_us"] = e["at_us"]
        lease = self.rows["leases"][attempt["lease_id"]]
        if lease["released_us"] is not None:
            yield f"lease {lease['id']} was released twice"
        lease["released_us"] = e["at_us"]
        for node_id in attempt["node_ids"]:
            self.open[node_id].pop(lease["id"], None)
            self._touch(node_id, e["at_us"])
        started_us = attempt["started_us"]
        job["runtime_ms"] += 0 if started_us is None else max(0, e["at_us"] - started_us) // 1_000
        if e["state"] == "failed":
            job["last_error"] = e["detail"] or job["last_error"]
        counter = _OWN_COUNTER.get(e["reason"]) or _COUNTED.get(e["state"])
        if counter:
            job[counter] += 1

    # -- nodes and flavors ----------------------------------------------------------------

    def _node_requested(self, e: Row) -> Told:
        if e["node_id"] in self.rows["nodes"]:
            yield f"node {e['node_id']} was requested twice"
        unset = ("booting_us", "ready_us", "drain_deadline_us", "gone_us", "idle_since_us")
        self.rows["nodes"][e["node_id"]] = {
            "id": e["node_id"],
            "state": "requested",
            "requested_us": e["at_us"],
            "changed_us": e["at_us"],
            "address": "",
            "noticed": False,
            "cordoned": False,
            "evict_notice_ms": None,
        } | {name: e[name] for name in ("cluster", "flavor", "reason", "gpu_milli", "cpus")}
        self.rows["nodes"][e["node_id"]] |= dict.fromkeys(unset)

    def _node_booting(self, e: Row) -> Told:
        yield from self._move("nodes", e["node_id"], "booting", e["at_us"])
        self.rows["nodes"][e["node_id"]]["booting_us"] = e["at_us"]

    def _node_ready(self, e: Row) -> Told:
        node = self.rows["nodes"][e["node_id"]]
        yield from self._move("nodes", e["node_id"], "ready", e["at_us"])
        node |= {"ready_us": e["at_us"], "address": e["address"]}
        node["booting_us"] = e["at_us"] if node["booting_us"] is None else node["booting_us"]
        self._touch(e["node_id"], e["at_us"])
        flavor = self.rows["flavors"][node["flavor"]]
        if flavor["launch_failures"]:
            flavor |= {"launch_failures": 0, "backoff_until_us": 0}

    def _node_draining(self, e: Row) -> Told:
        node = self.rows["nodes"][e["node_id"]]
        yield from self._move("nodes", e["node_id"], "draining", e["at_us"])
        node |= {"reason": e["reason"], "noticed": e["noticed"]}
        node["drain_deadline_us"] = e["deadline_us"]

    def _node_gone(self, e: Row) -> Told:
        node = self.rows["nodes"][e["node_id"]]
        if self.open.get(e["node_id"]):
            yield f"node {e['node_id']} went while {list(self.open[e['node_id']])} were open"
        yield from self._move("nodes", e["node_id"], "gone", e["at_us"])
        node |= {"reason": e["reason"], "gone_us": e["at_us"], "idle_since_us": None}
        flavor = self.rows["flavors"][node["flavor"]]
        if node["ready_us"] is not None:
            flavor["exposure_ms"] += max(0, e["at_us"] - node["ready_us"]) // 1_000
            flavor["evictions"] += e["reason"] in {"evicted", "node-lost"}
            flavor["noticed"] += e["reason"] == "evicted"

    def _cordoned(self, e: Row) -> Told:
        self.rows["nodes"][e["node_id"]]["cordoned"] = e["cordoned"]
        yield from ()

    def _eviction_requested(self, e: Row) -> Told:
        self.rows["nodes"][e["node_id"]]["evict_notice_ms"] = e["notice_ms"]
        yield from ()

    def _priced(self, e: Row) -> Told:
        known: Row = {"limit": 0, "limited_us": 0, "backoff_until_us": 0, "launch_failures": 0}
        known |= {"evictions": 0, "noticed": 0, "exposure_ms": 0, "levels": []}
        known["name"] = e["flavor"]
        row = self.rows["flavors"].setdefault(e["flavor"], known)
        names = ("usd_nanos_per_hour", "list_usd_nanos_per_hour", "price_source")
        row |= {name: e[name] for name in names} | {"priced_us": e["at_us"]}
        steps = self.prices.setdefault(e["flavor"], [])
        if steps and e["at_us"] < steps[-1][0]:
            yield f"the price of {e['flavor']} was changed in the past"
        steps.append((e["at_us"], e["usd_nanos_per_hour"], e["list_usd_nanos_per_hour"]))

    def _limited(self, e: Row) -> Told:
        row = self.rows["flavors"][e["flavor"]]
        row["limit"] = e["limit"]
        if e["observed"]:
            row["limited_us"] = e["at_us"]
            if not row["levels"] or row["levels"][-1][1] != e["limit"]:
                row["levels"] = [*row["levels"], [e["at_us"], e["limit"]]][-_KEPT_LEVELS:]
        yield from ()

    def _backed_off(self, e: Row) -> Told:
        row = self.rows["flavors"][e["flavor"]]
        row["backoff_until_us"] = e["until_us"]
        row["launch_failures"] += 1
        yield from ()


_HANDLERS: dict[str, Callable[[Fold, Row], Told]] = {
    "job-submitted": Fold._submitted,  # noqa: SLF001 - the table of this class's own handlers
    "job-quoted": Fold._quoted,  # noqa: SLF001
    "windows-set": Fold._windows,  # noqa: SLF001
    "job-deferred": Fold._deferred,  # noqa: SLF001
    "job-held": Fold._held,  # noqa: SLF001
    "job-cancel-requested": Fold._cancel_requested,  # noqa: SLF001
    "job-requeued": Fold._requeued,  # noqa: SLF001
    "job-ended": Fold._job_ended,  # noqa: SLF001
    "attempt-leased": Fold._leased,  # noqa: SLF001
    "attempt-moved": Fold._attempt_moved,  # noqa: SLF001
    "attempt-opened": Fold._opened,  # noqa: SLF001
    "attempt-silent": Fold._silent,  # noqa: SLF001
    "attempt-progressed": Fold._progressed,  # noqa: SLF001
    "checkpoint-committed": Fold._committed,  # noqa: SLF001
    "attempt-ended": Fold._attempt_ended,  # noqa: SLF001
    "node-requested": Fold._node_requested,  # noqa: SLF001
    "node-booting": Fold._node_booting,  # noqa: SLF001
    "node-ready": Fold._node_ready,  # noqa: SLF001
    "node-draining": Fold._node_draining,  # noqa: SLF001
    "node-gone": Fold._node_gone,  # noqa: SLF001
    "node-cordoned": Fold._cordoned,  # noqa: SLF001
    "eviction-requested": Fold._eviction_requested,  # noqa: SLF001
    "flavor-priced": Fold._priced,  # noqa: SLF001
    "flavor-limited": Fold._limited,  # noqa: SLF001
    "launch-backed-off": Fold._backed_off,  # noqa: SLF001
}
