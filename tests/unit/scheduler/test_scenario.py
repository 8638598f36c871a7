"""The scenario format: every field is read, every mistake is named by file, line and field."""

from __future__ import annotations

import gzip
import json
from decimal import Decimal
from pathlib import Path

import pytest

from jobs.budget import Period
from jobs.durations import US_PER_S
from jobs.errors import FileFormatError
from jobs.spec import Market
from scheduler.scenario import Scenario, load_scenario

START_US = 1_676_419_200 * US_PER_S

FULL = """\
version: 1
start: 2023-02-15T00:00:00Z
seed: 7
horizon_s: 604800
observation: probe
flavors:
  - name: us-east-1a-v100-spot
    market: spot
    accelerator: V100
    gpus_per_node: 8
    region: us-east-1
    zone: us-east-1a
    price_usd_per_hour: {file: prices.json, key: us-east-1a_v100_1, step_s: 195}
    nodes: {file: trace.csv, column: us-east-1a, step_s: 600}
    boot_s: 120
    notice_s: 30
  - name: sure
    market: on-demand
    accelerator: V100
    gpus_per_node: 8
    region: us-east-1
    price_usd_per_hour: 3.06
    nodes: 16
egress_usd_per_gb: {us-east-1: {us-west-2: 0.02}}
jobs:
  - {name: a, submit_s: 60, nodes: 2, gpus_per_node: 4, work_s: 172800, deadline_s: 216000,
     team: ads, priority: 3, setup_s: 10, restore_s: 600, save_s: 5, checkpoint_interval_s: 0,
     checkpoint_gb: 50}
  - {work_s: 1.5}
price_windows:
  - {name: night, days: [mon, fri], start: 22:00, end: 06:00, time_zone: Europe/Berlin,
     markets: [spot], price_percent: 60, rests_on: tariff}
budgets:
  - {team: ads, limit_usd: 500, period: month}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the files that the scenarios name."""
    (tmp_path / "prices.json").write_text(json.dumps({"us-east-1a_v100_1": [1.6703, 1.6703, 2]}))
    (tmp_path / "trace.csv").write_text("date,us-east-1a\nmon,4\ntue,0\nwed,0\nthu,2\n")
    return tmp_path


def load(folder: Path, text: str, name: str = "scenario.yaml") -> Scenario:
    """Write a scenario file and read it."""
    (folder / name).write_text(text)
    return load_scenario(folder / name)


def test_every_field_of_the_format_is_read(folder: Path) -> None:
    """World, capacity, prices, jobs, windows, budgets and egress arrive in our units."""
    scenario = load(folder, FULL)
    assert (scenario.start_us, scenario.end_us) == (START_US, START_US + 604_800 * US_PER_S)
    assert (scenario.seed, scenario.probe) == (7, True)
    spot, sure = scenario.capacities
    assert (spot.flavor.market, spot.flavor.accelerator, spot.flavor.region, spot.flavor.zone) == (
        Market.SPOT,
        "V100",
        "us-east-1",
        "us-east-1a",
    )
    assert (spot.flavor.gpu_milli, spot.flavor.boot_ms, spot.flavor.notice_ms) == (
        8_000,
        120_000,
        30_000,
    )
    assert spot.prices is not None
    assert spot.prices.values == (1_670_300_000, 2_000_000_000)
    assert spot.prices.from_us == (START_US, START_US + 390 * US_PER_S)
    assert spot.limits.values == (4, 0, 2)
    assert spot.limits.from_us == tuple(START_US + s * US_PER_S for s in (0, 600, 1_800))
    assert spot.flavor.max_nodes == 4
    assert spot.flavor.list_usd_nanos_per_hour == sure.flavor.usd_nanos_per_hour == 3_060_000_000
    assert (sure.limits.values, sure.prices) == ((16,), None)
    assert scenario.egress_nanos_per_gb == {("us-east-1", "us-west-2"): 20_000_000}
    (budget,) = scenario.budgets
    assert (budget.name, budget.owner) == ("ads-month", (("team", "ads"),))
    assert (budget.limit_usd_nanos, budget.period) == (500_000_000_000, Period.MONTH)
    (night,) = scenario.windows
    assert (night.days, night.start_s, night.end_s) == ((0, 4), 79_200, 21_600)
    assert (night.price_percent, night.markets) == (60, ("spot",))


def test_a_job_becomes_the_spec_that_a_user_would_submit(folder: Path) -> None:
    """All fields of a job, and the defaults of the shortest one; submission order holds."""
    second, first = load(folder, FULL).arrivals
    assert (first.at_us - START_US, second.at_us - START_US) == (60 * US_PER_S, 0)
    spec = first.spec
    assert (spec.name, spec.nodes, spec.gpus, spec.team, spec.priority) == (
        "a",
        2,
        Decimal(4),
        "ads",
        3,
    )
    assert (spec.work, spec.deadline) == (172_800_000, 216_000_000)
    assert (spec.setup, spec.restore, spec.save) == (10_000, 600_000, 5_000)
    assert (spec.checkpoint_interval, spec.checkpoint_gb) == (0, Decimal(50))
    assert (second.spec.name, second.spec.work, second.spec.deadline) == ("job-2", 1_500, None)
    assert (second.spec.checkpoint_interval, second.spec.nodes) == (None, 1)


def test_json_says_the_same_as_yaml(folder: Path) -> None:
    """The format is one, in either notation."""
    data = {
        "start": "2023-02-15T00:00:00Z",
        "flavors": [
            {"name": "x", "market": "spot", "price_usd_per_hour": 0.97, "nodes": 3, "boot_s": 90}
        ],
        "jobs": [{"work_s": 60}],
    }
    as_json = load(folder, json.dumps(data), "scenario.json")
    assert as_json == load(folder, json.dumps(data), "scenario.yaml")
    assert as_json.capacities[0].flavor.usd_nanos_per_hour == 970_000_000


@pytest.mark.parametrize(
    ("name", "content", "ask"),
    [
        ("t.json", "[4, 0, 0, 2]", "step_s: 600"),
        ("t.json", '{"metadata": {"gap_seconds": 600}, "data": [4, 0, 0, 2]}', ""),
        ("t.json", '{"a": [9], "b": [4, 0, 0, 2]}', "key: b, step_s: 600"),
        ("t.csv", "z,n\nx,4\nx,0\nx,0\nx,2\n", "column: n, step_s: 600"),
        ("t.csv", "n\n9\n4\n0\n0\n2\n", "column: n, step_s: 600, from_s: 600"),
    ],
)
def test_a_trace_may_be_a_list_an_object_or_a_table(
    folder: Path, name: str, content: str, ask: str
) -> None:
    """Every form of a trace file gives the same limits."""
    (folder / name).write_text(content)
    series = f"{{file: {name}, {ask}}}".replace(", }", "}")
    text = FULL.replace("{file: trace.csv, column: us-east-1a, step_s: 600}", series)
    assert load(folder, text).limits == load(folder, FULL).limits


def test_a_packed_trace_is_unpacked(folder: Path) -> None:
    """Public traces come as .csv.gz."""
    packed = gzip.compress((folder / "trace.csv").read_bytes())
    (folder / "trace.csv.gz").write_bytes(packed)
    assert (
        load(folder, FULL.replace("trace.csv", "trace.csv.gz")).limits == load(folder, FULL).limits
    )


def test_jobs_come_from_a_table_too(folder: Path) -> None:
    """The columns have the fields' names; an empty cell is an absent field."""
    (folder / "jobs.csv").write_text(
        "name,submit_s,work_s,deadline_s,checkpoint_interval_s,markets\n"
        "b,5,60,600,,spot;reserved\nc,0,30,,0,\n"
    )
    start = FULL.index("jobs:")
    text = FULL[:start] + "jobs: {file: jobs.csv}\n"
    c, b = load(folder, text).arrivals
    assert (b.spec.name, b.spec.deadline, b.spec.checkpoint_interval) == ("b", 600_000, None)
    assert b.spec.markets == (Market.SPOT, Market.RESERVED)
    assert (c.spec.name, c.spec.deadline, c.spec.checkpoint_interval) == ("c", None, 0)


@pytest.mark.parametrize(
    ("old", "new", "line", "field", "remedy"),
    [
        ("    boot_s: 120", "    boot: 120", 15, "flavors.0.boot", "boot_s"),
        ("work_s: 172800", "work_s: -1", 26, "jobs.0.work_s", "-1"),
        ("    nodes: 16", "    nodes: many", 23, "flavors.1.nodes", "many"),
        ("    market: spot\n", "", 7, "flavors.0.market", "Add 'market'"),
        ("observation: probe", "observation: guess", 5, "observation", "guess"),
        ("start: 22:00", "start: 25:00", 31, "price_windows.0.start", "25:00"),
        ("step_s: 600", "step_s: x", 14, "flavors.0.nodes.step_s", "x"),
        ("name: sure", "name: us-east-1a-v100-spot", 17, "flavors.1.name", "Rename"),
        ("markets: [spot]", "flavors: [nope]", 32, "price_windows.0.flavors", "sure"),
        ("version: 1", "version: 2", 1, "version", "2"),
        (
            "price_usd_per_hour: 3.06",
            "price_usd_per_hour: -3",
            22,
            "flavors.1.price_usd_per_hour",
            "-3",
        ),
        (
            "price_usd_per_hour: 3.06",
            "price_usd_per_hour: .inf",
            22,
            "flavors.1.price_usd_per_hour",
            "inf",
        ),
        ("    nodes: 16", "    nodes: 10000000000", 23, "flavors.1.nodes", "10000000000"),
        (
            "{us-east-1: {us-west-2",
            "{us-est-1: {us-wst-2",
            24,
            "egress_usd_per_gb.us-est-1",
            "Did you mean 'us-east-1'?",
        ),
        (
            "priority: 3",
            "priority: 3, regions: [us-est-1]",
            27,
            "jobs.0.regions",
            "Did you mean 'us-east-1'?",
        ),
        (
            "priority: 3",
            "priority: 3, accelerators: [v100]",
            27,
            "jobs.0.accelerators",
            "The flavors have: V100.",
        ),
        ("start: 2023-02", "start: 1023-02", 2, "start", "1971"),
        ("Europe/Berlin", "Europe/Berln", 31, "price_windows.0.time_zone", "Berln"),
        ("end: 06:00", "end: 22:00", 31, "price_windows.0", ""),
        ("limit_usd: 500", "limit_usd: -500", 34, "budgets.0.limit_usd", "-500"),
        ("limit_usd: 500", "limit: 500", 34, "budgets.0.limit", "limit_usd"),
        ("deadline_s: 216000", "deadline_s: 0", 26, "jobs.0.deadline_s", "0"),
        ("work_s: 172800", "work_s: 1e11", 26, "jobs.0.work_s", "100000000000"),
    ],
)
def test_a_mistake_is_named_by_line_and_field(
    folder: Path, old: str, new: str, line: int, field: str, remedy: str
) -> None:
    """One line of cause with line and field, one of remedy."""
    assert old in FULL
    with pytest.raises(FileFormatError) as caught:
        load(folder, FULL.replace(old, new, 1))
    assert f"scenario.yaml, line {line}, field '{field}'" in caught.value.cause
    assert remedy in caught.value.remedy


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("trace.csv", "date,us-east-1a\nmon,4\ntue,x\n", "line 3, field 'us-east-1a'"),
        ("trace.csv", "date,us-east-1a\nmon,4\ntue\n", "line 3"),
        ("trace.csv", "date,elsewhere\nmon,4\n", "no column 'us-east-1a'"),
        ("trace.csv", "", "is empty"),
        ("prices.json", '{"us-east-1a_v100_1": [1,\n 2', "line 2"),
        ("prices.json", '{"us-east-1a_v100_1": [1, null]}', "element 2"),
        ("prices.json", '{"elsewhere": [1]}', "no series 'us-east-1a_v100_1'"),
        ("prices.json", '{"us-east-1a_v100_1": []}', "no value"),
        ("prices.json", '{"us-east-1a_v100_1": [1, -2]}', "element 2"),
        ("prices.json", '{"us-east-1a_v100_1": [1, NaN]}', "element 2"),
        ("prices.json", '{"us-east-1a_v100_1": [1, 1e300]}', "more than 100,000"),
        ("trace.csv", "us-east-1a,us-east-1a\n1,2\n", "two columns called 'us-east-1a'"),
    ],
)
def test_a_mistake_in_a_named_file_says_where(
    folder: Path, name: str, content: str, expected: str
) -> None:
    """The cause names the file and the place in it."""
    load(folder, FULL)  # what was read before must not be remembered
    (folder / name).write_text(content)
    with pytest.raises(FileFormatError) as caught:
        load(folder, FULL)
    assert name in caught.value.cause
    assert expected in caught.value.cause
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("table", "place", "remedy"),
    [
        ("wrk_s\n9\n", "line 2, field 'wrk_s'", "Did you mean 'work_s'?"),
        ("work_s,deadine_s\n9,10\n", "line 2, field 'deadine_s'", "Did you mean 'deadline_s'?"),
        ("work_s,deadline_s\n9,10\n9\n", "line 3", "as many fields"),
        ("work_s,regions\n9,us-east-1\n9,us-est-1\n", "line 3, field 'regions'", "us-east-1"),
        ("work_s\n9\nnan\n", "line 3, field 'work_s'", "nan"),
        ("", "is empty", "header"),
    ],
)
def test_a_mistake_in_a_table_of_jobs_says_where(
    folder: Path, table: str, place: str, remedy: str
) -> None:
    """By line and column of that file, with the nearest name; no other job is taken either."""
    (folder / "jobs.csv").write_text(table)
    start = FULL.index("jobs:")
    text = FULL[:start] + "jobs: {file: jobs.csv}\n" + FULL[FULL.index("price_windows:") :]
    with pytest.raises(FileFormatError) as caught:
        load(folder, text)
    assert f"jobs.csv{', ' if place.startswith('line') else ' '}{place}" in caught.value.cause
    assert remedy in caught.value.remedy


def test_a_table_that_a_spreadsheet_wrote_is_read(folder: Path) -> None:
    """Its invisible first mark is no part of the first column's name."""
    (folder / "jobs.csv").write_bytes(b"\xef\xbb\xbfwork_s,name\r\n9,a\r\n")
    text = FULL[: FULL.index("jobs:")] + "jobs: {file: jobs.csv}\n"
    assert load(folder, text).arrivals[0].spec.work == 9_000


@pytest.mark.parametrize(
    ("text", "expected"), [("flavors: [\n", "line"), ("just words", "scenario.yaml"), ("", "start")]
)
def test_what_is_no_scenario_at_all_is_refused(folder: Path, text: str, expected: str) -> None:
    """Broken syntax, plain text and an empty file are mistakes, not crashes."""
    with pytest.raises(FileFormatError, match=expected):
        load(folder, text)


def test_a_missing_file_is_a_mistake_with_a_remedy(tmp_path: Path) -> None:
    """The scenario itself, or a file that it names."""
    with pytest.raises(FileFormatError, match="cannot be read"):
        load_scenario(tmp_path / "none.yaml")
    with pytest.raises(FileFormatError, match=r"trace\.csv cannot be read"):
        load(tmp_path, FULL)
