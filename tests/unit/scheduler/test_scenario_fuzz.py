"""Whatever a scenario file holds: a scenario, or one mistake by file and field; never a crash."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs.errors import FileFormatError
from scheduler.scenario import Scenario, load_scenario

WHOLE: dict[str, Any] = {
    "version": 1,
    "start": "2023-02-15T00:00:00Z",
    "seed": 7,
    "horizon_s": 604_800,
    "observation": "free",
    "flavors": [
        {
            "name": "spot",
            "market": "spot",
            "accelerator": "V100",
            "gpus_per_node": 1,
            "region": "east",
            "zone": "east-1",
            "price_usd_per_hour": {"file": "prices.json", "key": "a", "step_s": 60},
            "nodes": {"file": "trace.csv", "column": "a", "step_s": 600},
            "boot_s": 60,
            "notice_s": 30,
        },
        {"name": "sure", "market": "on-demand", "price_usd_per_hour": 3, "nodes": 4},
    ],
    "egress_usd_per_gb": {"east": {"west": 0.02}},
    "jobs": [{"name": "a", "work_s": 600, "deadline_s": 3_600, "markets": ["spot"]}],
    "price_windows": [{"name": "night", "start": "22:00", "end": "06:00", "price_percent": 50}],
}
FILES = {
    "prices.json": '{"a": [1, 2.5, 0]}',
    "trace.csv": "t,a\n0,1\n1,0\n",
    "jobs.csv": "work_s\n9\n",
}

values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([-1, 0, 10**9, 4 * 10**9, 10**19, 10**400, 1e-9, 1e300]),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(
        [
            "",
            "0",
            "nan",
            "a\x07",
            "b" * 300,
            "-inf",
            "22:00",
            "spot",
            "2023-02-30",
            "9999-12-31T23:59:59Z",
        ]
    ),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=2),
    st.fixed_dictionaries({"file": st.sampled_from([*FILES, "nowhere", ".", "a\0b", ""])}),
)


@st.composite
def spoiled(draw: st.DrawFn) -> dict[str, Any]:
    """A whole scenario in which some things were deleted, replaced or added."""
    data = deepcopy(WHOLE)
    for _ in range(draw(st.integers(min_value=1, max_value=3))):
        part: Any = data
        while True:
            keys = list(part) if isinstance(part, dict) else list(range(len(part)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            deeper = isinstance(part[key], dict | list) and draw(st.booleans())
            if deeper:
                part = part[key]
                continue
            if draw(st.integers(min_value=0, max_value=4)) == 0:
                del part[key]
            else:
                part[key] = draw(values)
            break
    return data


def load(scenario: str, *, suffix: str, files: dict[str, bytes]) -> Scenario | None:
    """Load from a folder of its own; None when it was refused as it should be."""
    with TemporaryDirectory() as folder:
        for name, content in files.items():
            (Path(folder) / name).write_bytes(content)
        path = Path(folder) / f"scenario{suffix}"
        path.write_text(scenario, encoding="utf-8")
        try:
            return load_scenario(path)
        except FileFormatError as error:
            mistake = error
        assert str(path.parent) in mistake.cause
        assert mistake.cause.endswith(".")
        assert mistake.remedy
        return None


whole_files = {name: text.encode() for name, text in FILES.items()}


@given(data=spoiled(), suffix=st.sampled_from([".json", ".yaml"]))
@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
def test_a_spoiled_scenario_is_one_or_a_named_mistake(data: dict[str, Any], suffix: str) -> None:
    """Wrong types, sizes and names anywhere."""
    text = json.dumps(data) if suffix == ".json" else yaml.safe_dump(data, allow_unicode=True)
    load(text, suffix=suffix, files=whole_files)


@given(text=st.text(max_size=40), suffix=st.sampled_from([".json", ".yaml"]))
@settings(max_examples=100)
def test_any_text_is_no_crash(text: str, suffix: str) -> None:
    """Also what looks like YAML and is none."""
    load(text, suffix=suffix, files=whole_files)


numbers = st.sampled_from(
    ["1", "0", "-1", "nan", "inf", "1e40", "9" * 5_000, "", "x", '"', "[[", "\0"]
)


@given(
    rows=st.lists(st.lists(numbers, min_size=1, max_size=3), max_size=4),
    junk=st.binary(max_size=20),
    name=st.sampled_from(["prices.json", "trace.csv"]),
)
@settings(max_examples=100)
def test_a_named_file_may_hold_anything(rows: list[list[str]], junk: bytes, name: str) -> None:
    """Tables with holes, numbers that are none, bytes that are no text."""
    table = "\n".join(["t,a", *(",".join(row) for row in rows)]).encode()
    listed = f'{{"a": [{",".join(cell for row in rows for cell in row)}]}}'.encode()
    for content in (table, listed, junk):
        load(json.dumps(WHOLE), suffix=".json", files=whole_files | {name: content})


@given(
    header=st.lists(st.sampled_from(["work_s", "name", "wrk_s", "\ufeffname", "tags"]), max_size=3),
    rows=st.lists(st.lists(numbers, min_size=1, max_size=3), max_size=3),
)
@settings(max_examples=60)
def test_a_table_of_jobs_may_hold_anything(header: list[str], rows: list[list[str]]) -> None:
    """Columns twice, unknown or missing; rows with a half."""
    table = "\n".join(",".join(row) for row in (header, *rows)).encode()
    data = WHOLE | {"jobs": {"file": "jobs.csv"}}
    load(json.dumps(data), suffix=".json", files=whole_files | {"jobs.csv": table})


@pytest.mark.parametrize("suffix", [".json", ".yaml"])
def test_what_is_spoiled_here_is_whole_before(suffix: str) -> None:
    """Or every other test here would prove nothing."""
    text = json.dumps(WHOLE) if suffix == ".json" else yaml.safe_dump(WHOLE)
    assert load(text, suffix=suffix, files=whole_files) is not None


@pytest.mark.parametrize("suffix", [".json", ".yaml"])
def test_nesting_without_end_is_a_mistake(suffix: str) -> None:
    """A parser's own limits are no crash."""
    assert load("[" * 100_000, suffix=suffix, files={}) is None
