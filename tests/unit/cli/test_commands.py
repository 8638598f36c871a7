"""Each command against a small real server: what people read, and the JSON that scripts read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jobs.archive import pack
from tests.unit.cli.conftest import Lowtide
from tests.unit.jobs_client.tiny_api import TinyApi, job_row, problem

NANO = 1_000_000_000
NODE = {
    "id": "node-1",
    "flavor": "spot",
    "cluster": "local",
    "state": "ready",
    "reason": "for-attempt",
    "gpu_milli": 1_000,
    "cpus": 4,
    "booting_us": 1_000_000,
    "noticed": True,
    "cordoned": False,
    "idle_since_us": None,
    "drain_deadline_us": None,
}


def amount(cents: float, *, hours: float = 1, listed: float = 0) -> dict[str, int]:
    """Build an amount of money and GPU time."""
    return {
        "usd_nanos": round(cents * NANO / 100),
        "gpu_ms": round(hours * 3_600_000),
        "list_usd_nanos": round(listed * NANO / 100),
    }


def statement() -> dict[str, Any]:
    """Build a statement as the server writes it."""
    return {
        "job_id": "job-1",
        "classes": {
            "useful": amount(80.4, hours=2, listed=200.4),
            "lost": amount(10.4, hours=0.5, listed=20.4),
            "stall": amount(0, hours=0),
        },
        "total": amount(90.8, hours=2.5, listed=220.8),
        "useful_gpu_ms": 7_200_000,
        "restart_gpu_ms": 1_800_000,
        "restart_usd_nanos": 104_000_000,
        "effective_usd_nanos_per_useful_gpu_hour": 454_000_000,
        "net_spot_saving_usd_nanos": 1_096_000_000,
        "goodput_gpu_ppm": 800_000,
    }


def detail(**changes: Any) -> dict[str, Any]:
    """Build a job with one attempt."""
    attempt = {
        "id": "job-1/1",
        "job_id": "job-1",
        "number": 1,
        "state": "training",
        "reason": "cheapest-now",
        "cluster": "local",
        "flavor": "spot",
        "node_ids": ["node-1", "node-2"],
        "gpu_milli": 1_000,
        "lease_id": "lease-1",
        "created_us": 2_000_000,
    }
    return {"job": job_row(**changes), "attempts": [attempt]}


@pytest.fixture
def script(tmp_path: Path) -> str:
    """A training script in a folder of its own."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "train.py").write_text("print('hello')\n")
    return "project/train.py"


@pytest.fixture
def shop(api: TinyApi, script: str, tmp_path: Path) -> TinyApi:
    """A server that takes the script's folder and queues any job."""
    path = f"/v1/code/{pack(tmp_path / 'project').sha256}"
    api.on_each("HEAD", path, (404, b""), (200, b""))
    api.on("PUT", path, {"new": True}, status=201)
    api.on("POST", "/v1/jobs", {"job": job_row(reason="new", sentence="")}, status=201)
    api.on("GET", "/v1/jobs/job-1", detail())
    return api


def test_ls_shows_what_matters(api: TinyApi, lowtide: Lowtide) -> None:
    """State, reason, progress and counts stand in one line; brackets in names stay."""
    row = job_row(total_steps=200, step=50, attempts=3, evictions=2)
    row["spec"]["name"] = "digits[v2]"
    api.on("GET", "/v1/jobs", {"jobs": [row], "next": None})
    header, line = lowtide("ls").out.splitlines()
    assert header.split()[:5] == ["id", "name", "team", "state", "reason"]
    cells = line.split()
    assert cells[:5] == ["job-1", "digits[v2]", "ads", "queued", "waits-for-capacity"]
    assert cells[5:9] == ["25", "%", "3", "2"]
    assert lowtide("ls", "--json").data == [row]


def test_ls_of_nothing_says_what_to_do(api: TinyApi, lowtide: Lowtide) -> None:
    """An empty table would leave a newcomer alone."""
    api.on("GET", "/v1/jobs", {"jobs": [], "next": None})
    assert "lowtide submit" in lowtide("ls").out
    assert lowtide("ls", "--json").data == []


def test_show_tells_where_a_job_stands(api: TinyApi, lowtide: Lowtide) -> None:
    """Wishes, progress, restore point, next step and every attempt."""
    api.on("GET", "/v1/jobs/job-1", detail(state="running", attempt_id="job-1/1", attempts=1))
    out = lowtide("show", "job-1").out
    assert "an eviction now would lose everything so far" in out
    assert "it trains on node-1, node-2 (spot): lowtide logs -f job-1" in out
    assert "training" in out.splitlines()[-1]
    assert set(lowtide("show", "job-1", "--json").data) == {"job", "attempts"}


def an_explanation() -> dict[str, object]:
    """What a server says of a job that waits for capacity."""
    costs = {
        "cost_usd_nanos": 2_000_000_000,
        "effective_usd_nanos_per_hour": 1_100_000_000,
        "latest_start_us": None,
        "cheaper_from_us": None,
        "cheaper_usd_nanos": None,
    }
    spot: dict[str, object] = {
        "flavor": "spot",
        "allowed": True,
        "obstacles": [],
        "room": False,
        **costs,
    }
    west: dict[str, object] = dict.fromkeys(costs)
    west |= {"flavor": "west", "allowed": False, "room": False}
    return {
        "id": "job-1",
        "at_us": 0,
        "state": "queued",
        "reason": "waits-for-capacity",
        "help": "every allowed flavor is at its limit",
        "sentence": "every spot node is taken",
        "deadline_us": None,
        "latest_start_us": None,
        "slack_ms": None,
        "ahead": 1,
        "ahead_ids": ["job-0"],
        "next": "",
        "alternatives": [
            {**spot, "usd_nanos_per_hour": 1_000_000_000},
            {
                **west,
                "obstacles": ["regions excludes its 'west'"],
                "usd_nanos_per_hour": 900_000_000,
            },
        ],
        "releases": [
            {
                "what": "going before the others (--priority 1)",
                "by": "owner",
                "at_us": None,
                "usd_nanos": None,
                "flavor": "spot",
            }
        ],
    }


def test_explain_gives_reason_sentence_and_help(api: TinyApi, lowtide: Lowtide) -> None:
    """The named reason, the sentence with the facts, what the reason means, what would help."""
    api.on("GET", "/v1/jobs/job-1/explain", an_explanation())
    out = lowtide("explain", "job-1").out
    assert "waits-for-capacity" in out
    assert "every spot node is taken" in out
    assert "every allowed flavor is at its limit" in out
    assert "in the queue: 1 job ahead: job-0" in out
    assert "released by going before the others (--priority 1)" in out
    assert "no: regions excludes its 'west'" in out
    assert lowtide("explain", "job-1", "--json").data == an_explanation()


@pytest.mark.parametrize(
    ("verb", "row", "told"),
    [
        ("cancel", job_row(state="cancelled"), "cancelled"),
        ("cancel", job_row(attempt_id="job-1/2"), "attempt job-1/2 is stopping"),
        ("pause", job_row(), "held until `lowtide resume job-1`"),
        ("pause", job_row(attempt_id="job-1/2"), "it saves first"),
        ("resume", job_row(), "every spot node is taken"),
    ],
)
def test_wishes_say_what_becomes_of_them(
    api: TinyApi, lowtide: Lowtide, verb: str, row: dict[str, Any], told: str
) -> None:
    """At once or under way."""
    api.on("POST", f"/v1/jobs/job-1/{verb}", {"job": row})
    assert told in lowtide(verb, "job-1").out
    assert lowtide(verb, "job-1", "--json").data == row


def test_a_wish_that_makes_no_sense_is_refused(api: TinyApi, lowtide: Lowtide) -> None:
    """The server's words and exit code 2."""
    refusal = problem("conflict", "Job job-1 is over.", "Submit it again.")
    api.on("POST", "/v1/jobs/job-1/cancel", refusal, status=409)
    outcome = lowtide("cancel", "job-1")
    assert (outcome.code, outcome.err) == (
        2,
        "error: Job job-1 is over.\n  fix: Submit it again.\n",
    )


def test_a_statement_adds_up_to_the_cent(api: TinyApi, lowtide: Lowtide) -> None:
    """80.4 and 10.4 cents are 91 cents together, so the lines must not read 80 and 10."""
    api.on("GET", "/v1/jobs/job-1/cost", statement())
    out = lowtide("cost", "job-1").out
    lines = {line.split()[0]: line.split() for line in out.splitlines() if line}
    assert lines["useful"][1:] == ["2.00", "h", "80", "%", "$0.81", "$2.01", "$0.804000000"]
    assert lines["lost"][5:7] == ["$0.10", "$0.20"]
    assert lines["total"][5:7] == ["$0.91", "$2.21"]
    assert "stall" not in lines
    assert "exactly $0.908000000" in out
    assert "$0.45 for each useful GPU-hour" in out
    assert "$1.10 saved against on demand, restarts included" in out
    assert lowtide("cost", "job-1", "--json").data == statement()


def test_all_costs_tie_to_the_bill(api: TinyApi, lowtide: Lowtide) -> None:
    """The last line says so, or that it does not."""
    overview = {
        "jobs": {"job-1": statement()},
        "idle": amount(5),
        "overhead": amount(4.2),
        "bill": amount(100, hours=4.5, listed=220.8),
        "difference_usd_nanos": 0,
    }
    api.on("GET", "/v1/cost", overview)
    out = lowtide("cost").out
    assert "jobs + idle + overhead = the nodes' bill = $1.000000000" in out
    assert lowtide("cost", "--json").data == overview
    api.on("GET", "/v1/cost", {**overview, "difference_usd_nanos": 1})
    assert "differ from the nodes' bill of $1.000000000 by $0.000000001" in lowtide("cost").out


def test_nodes_and_game_days(api: TinyApi, lowtide: Lowtide) -> None:
    """A noticed node is marked; eviction and cordon say how to watch and how to undo."""
    api.on("GET", "/v1/nodes", {"nodes": [NODE]})
    api.on("POST", "/v1/nodes/node-1/evict", {"node": NODE})
    api.on("POST", "/v1/nodes/node-1/cordon", {"node": NODE})
    assert "ready (eviction notice)" in lowtide("nodes").out
    assert lowtide("nodes", "--json").data == [NODE]
    assert "notice of 5s" in lowtide("evict", "node-1", "--notice", "5s").out
    assert lowtide("evict", "node-1", "--json").data == NODE
    assert "--undo" in lowtide("cordon", "node-1").out
    lowtide("cordon", "node-1", "--undo")
    sent = [request.data for request in api.asked("POST", "/v1/nodes/node-1/cordon")]
    assert sent == [{"cordoned": True}, {"cordoned": False}]


def test_submit_says_size_id_and_reason(shop: TinyApi, lowtide: Lowtide, script: str) -> None:
    """What was uploaded, who it is, and why it waits."""
    out = lowtide("submit", script, "--team", "ads", "--", "--epochs", "3").out.splitlines()
    assert out[0].startswith("code: 1 file, ")
    assert out[0].endswith("uploaded")
    assert "job job-1" in out[1]
    assert "waits-for-capacity: every spot node is taken" in out[2]
    assert "lowtide logs -f job-1" in out[3]
    assert shop.submits()[0].data["args"] == ["--epochs", "3"]
    again = lowtide("submit", script, "--json").data
    assert again["job"]["id"] == "job-1"
    assert again["upload"]["uploaded"] is False
    assert len(again["upload"]["sha256"]) == 64


def test_what_is_refused_is_not_uploaded(shop: TinyApi, lowtide: Lowtide, script: str) -> None:
    """The server is asked first; cause and remedy are its own."""
    refusal = problem("infeasible", "No flavor can hold it.", "Ask for less.")
    shop.on("POST", "/v1/jobs", refusal, status=422)
    outcome = lowtide("submit", script, "--gpus", "64")
    assert outcome.code == 2
    assert outcome.err == "error: No flavor can hold it.\n  fix: Ask for less.\n"
    assert {request.method for request in shop.requests} == {"HEAD", "POST"}


def test_a_dry_run_sends_nothing(shop: TinyApi, lowtide: Lowtide, script: str) -> None:
    """The server is asked, and neither code nor job is stored."""
    assert "would be accepted" in lowtide("submit", script, "--dry-run").out
    assert lowtide("submit", script, "--dry-run", "--json").data["upload"]["uploaded"] is False
    assert {request.method for request in shop.requests} == {"POST"}
    assert not shop.submits()


@pytest.mark.parametrize(("state", "code"), [("succeeded", 0), ("failed", 1), ("cancelled", 1)])
def test_waiting_tells_by_its_exit_code(
    shop: TinyApi, lowtide: Lowtide, script: str, state: str, code: int
) -> None:
    """A script may build on it."""
    shop.on_each("GET", "/v1/jobs/job-1", detail(), detail(state=state, sentence="so it ended"))
    outcome = lowtide("submit", script, "--wait")
    assert outcome.code == code
    assert f"{state}, waits-for-capacity: so it ended" in outcome.out
    assert lowtide("submit", script, "--wait", "--json").data["job"]["state"] == state


def test_logs_keep_headings_out_of_the_pipe(api: TinyApi, lowtide: Lowtide) -> None:
    """Standard output is the training's own; attempts and the end are told beside it."""
    api.on("GET", "/v1/jobs/job-1", detail(state="failed", attempts=2, sentence="exit code 3"))

    def page(request: Any) -> tuple[int, Any]:
        number = request.query["attempt"]
        return 200, {"data": f"out {number}\n", "offset": 0, "next": 6, "done": True}

    api.routes["GET", "/v1/jobs/job-1/logs"] = page
    outcome = lowtide("logs", "job-1")
    assert (outcome.code, outcome.out) == (0, "out 1\nout 2\n")
    assert "attempt 2" in outcome.err
    assert "failed: exit code 3" in outcome.err
    assert lowtide("logs", "-f", "job-1").code == 1
    assert lowtide("logs", "job-1", "--json").data["attempts"] == [
        {"attempt": 1, "data": "out 1\n"},
        {"attempt": 2, "data": "out 2\n"},
    ]
    assert lowtide("logs", "job-1", "--attempt", "2").out == "out 2\n"
    assert lowtide("logs", "job-1", "--attempt", "3").code == 2


def test_an_audit_tells_by_its_exit_code(api: TinyApi, lowtide: Lowtide) -> None:
    """0 is clean, 1 has findings, each on a line."""
    api.on("GET", "/v1/audit", {"clean": True, "findings": []})
    assert lowtide("audit").code == 0
    found = {"rule": "fold", "subject": "jobs/job-1", "detail": "step: 1 is not 2"}
    api.on("GET", "/v1/audit", {"clean": False, "findings": [found]})
    outcome = lowtide("audit")
    assert outcome.code == 1
    assert "fold: jobs/job-1: step: 1 is not 2" in outcome.out
    assert lowtide("audit", "--json").data["findings"] == [found]


def test_doctor_finds_the_server(api: TinyApi, lowtide: Lowtide) -> None:
    """Well with a server and its token; without one it says so and ends with 1."""
    api.on("GET", "/v1/health", {"status": "ok", "role": "leader", "version": "9.9"})
    api.on("GET", "/v1/jobs", {"jobs": [], "next": None})
    assert lowtide("doctor").code == 0
    assert {check["check"] for check in lowtide("doctor", "--json").data} >= {"token", "disk"}
    assert lowtide("version", "--json").data["server"] == "9.9"


def test_doctor_without_a_server(lowtide: Lowtide) -> None:
    """The fix stands below what is missing."""
    outcome = lowtide("doctor")
    assert outcome.code == 1
    assert "fix: Start one with `lowtide up`" in outcome.out
    assert json.loads(lowtide("version", "--json").out)["server"] is None


def element(index: int, **changes: object) -> dict[str, Any]:
    """Build an element of an array as the server writes it."""
    place = {"id": "sweep-1", "index": index, "size": 3, "max_parallel": 2}
    spec = {"script": "train.py", "name": f"sweep-{index}", "team": "ads"}
    return job_row(id=f"sweep-1.{index}", spec=spec, array=place, **changes)


def test_an_array_is_one_line_that_can_be_opened(api: TinyApi, lowtide: Lowtide) -> None:
    """With counts by state; a state or `--array` lists the elements themselves."""
    counts = {"sweep-1": {"succeeded": 1, "queued": 2}}
    page = {"jobs": [element(0), job_row()], "arrays": counts, "next": None}
    api.on("GET", "/v1/jobs", page)
    out = lowtide("ls").out
    assert "sweep [3]" in out
    assert "2 queued, 1 succeeded" in out
    assert "33 %" in out
    api.on("GET", "/v1/jobs", {"jobs": [element(0), element(1), element(2)], "next": None})
    lines = lowtide("ls", "--array", "sweep-1").out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["sweep-1.0", "sweep-1.1", "sweep-1.2"]


def test_an_array_is_cancelled_as_one(api: TinyApi, lowtide: Lowtide) -> None:
    """Each element says how it stands."""
    rows = [element(0, state="succeeded", ended_us=1), element(1), element(2)]
    api.on("POST", "/v1/jobs/sweep-1/cancel", {"job": rows[0], "jobs": rows})
    out = lowtide("cancel", "sweep-1").out.splitlines()
    assert out[0] == "job sweep-1.0: over already (succeeded)"
    assert len(out) == 3


def test_submit_takes_an_array_and_a_list(api: TinyApi, lowtide: Lowtide, tmp_path: Path) -> None:
    """Both go to the server as one group; the array is said once."""
    (tmp_path / "train.py").write_text("print()")
    archive = pack(tmp_path)
    api.on("HEAD", f"/v1/code/{archive.sha256}", b"")
    api.on("POST", "/v1/jobs/group", {"jobs": [element(0), element(1), element(2)]}, status=201)
    done = lowtide("submit", "train.py", "--array", "3", "--max-parallel", "2")
    assert (done.code, done.out.count("array of 3 sweep-1 (sweep)")) == (0, 1)
    refused = lowtide("submit", "train.py", "--array", "5000")
    assert refused.code == 2
    assert "--array" in refused.err
