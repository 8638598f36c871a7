"""Options and files become one specification, and mistakes are named where they were made."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.errors import FileFormatError, SpecError
from scheduler.cli.wishes import fields_of, pairs, spec_from, specs_from


def yaml(folder: Path, text: str) -> Path:
    """Write a specification file."""
    path = folder / "job.yaml"
    path.write_text(text)
    return path


def test_options_become_fields() -> None:
    """Singular, repeatable options fill the fields with the plural names."""
    options = {
        "script": "train.py",
        "market": ["spot"],
        "tag": ["a=1", "b=x=y"],
        "env": ["LR=0.1"],
        "budget": "12.50",
        "nodes": None,
        "region": [],
    }
    assert fields_of(options) == {
        "script": "train.py",
        "markets": ["spot"],
        "tags": {"a": "1", "b": "x=y"},
        "env": {"LR": "0.1"},
        "budget_usd": "12.50",
    }


@pytest.mark.parametrize("texts", [["a"], ["=1"], ["a=1", "a=2"]])
def test_a_pair_needs_a_key_and_a_value(texts: list[str]) -> None:
    """The remedy shows the form."""
    with pytest.raises(SpecError, match="--tag"):
        pairs(texts, option="tag")


def test_an_option_wins_over_the_file(tmp_path: Path) -> None:
    """The file gives the rest, and a script in it lies beside it."""
    file = yaml(tmp_path, "script: train.py\nteam: ads\nnodes: 2\nwork: 2h\n")
    spec = spec_from({"team": "search", "nodes": None}, file=file)
    assert (spec.team, spec.nodes, spec.work) == ("search", 2, 7_200_000)
    assert spec.script == str(tmp_path / "train.py")


def test_a_mistake_in_the_file_is_named_by_line(tmp_path: Path) -> None:
    """Line and field, whether the value or the name is wrong."""
    file = yaml(tmp_path, "script: train.py\nnodes: 0\n")
    with pytest.raises(FileFormatError, match="line 2: Field 'nodes'"):
        spec_from({}, file=file)
    file = yaml(tmp_path, "script: train.py\nteam: a\nnodez: 2\n")
    with pytest.raises(FileFormatError, match=r"line 3: Unknown field 'nodez'\. Did you mean"):
        spec_from({}, file=file)


def test_a_mistake_in_an_option_is_named_by_the_option(tmp_path: Path) -> None:
    """The reader typed --budget and has never heard of budget_usd; the file is not blamed."""
    file = yaml(tmp_path, "budget_usd: 5\n")
    with pytest.raises(SpecError) as caught:
        spec_from({"budget": "-1"}, file=file)
    assert caught.value.cause.startswith("--budget: ")
    assert "--budget" in caught.value.remedy
    with pytest.raises(SpecError, match=r"^--market: .*spot"):
        spec_from({"market": ["cheap"]}, file=None)


@pytest.mark.parametrize(
    ("text", "told"), [("a: [", "line"), ("- a\n", "mapping"), ("nodes: 1\nnodes: 2\n", "twice")]
)
def test_a_corrupt_file_says_where(tmp_path: Path, text: str, told: str) -> None:
    """No traceback of a YAML parser reaches the user."""
    with pytest.raises(FileFormatError, match=told):
        spec_from({}, file=yaml(tmp_path, text))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """The remedy names the option."""
    with pytest.raises(FileFormatError, match="--from"):
        spec_from({}, file=tmp_path / "nowhere.yaml")


def test_a_file_may_hold_several_jobs(tmp_path: Path) -> None:
    """In order; options hold for each, and a mistake is found by its line."""
    text = "- {name: data, script: a.py}\n- name: fit\n  script: b.py\n  after: [data]\n"
    file = yaml(tmp_path, text)
    specs = specs_from({"team": "ads"}, file=file)
    assert [(spec.name, spec.team) for spec in specs] == [("data", "ads"), ("fit", "ads")]
    assert specs[1].after[0].job == "data"
    with pytest.raises(FileFormatError, match="holds 2 jobs"):
        spec_from({}, file=file)
    wrong = yaml(tmp_path, "- {script: a.py}\n- script: b.py\n  nodes: 0\n")
    with pytest.raises(FileFormatError, match="line 3"):
        specs_from({}, file=wrong)
    with pytest.raises(FileFormatError, match="line 2: a specification is a mapping"):
        specs_from({}, file=yaml(tmp_path, "- {script: a.py}\n- train.py\n"))


def test_options_make_arrays_and_dependencies() -> None:
    """As the fields of the same names in a file."""
    options = {"script": "t.py", "array": 4, "max_parallel": 2, "after": ["a", "b:ended"]}
    spec = spec_from({**options, "retry_on": [3], "max_evictions": 5}, file=None)
    assert spec.array is not None
    assert (spec.array.size, spec.max_parallel, spec.retry_on) == (4, 2, (3,))
    assert [one.when for one in spec.after] == ["succeeded", "ended"]
