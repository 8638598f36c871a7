"""How any command begins and ends: help, exit codes, and errors in two lines."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from scheduler.cli.app import COMMANDS, run
from scheduler.cli.output import own_stdout
from tests.unit.cli.conftest import Lowtide
from tests.unit.jobs_client.tiny_api import TinyApi, problem

NAMES = [name for name, *_ in COMMANDS]
HEAVY = ("torch", "ray", "fastapi", "sqlalchemy", "boto3", "numpy", "pydantic", "httpx", "rich")


@pytest.mark.parametrize("name", NAMES)
def test_every_command_documents_its_ends_and_has_json(lowtide: Lowtide, name: str) -> None:
    """`--help` tells the exit codes, and `--json` is there."""
    outcome = lowtide(name, "--help")
    assert outcome.code == 0
    assert "Exit codes:" in outcome.out
    assert "--json" in outcome.out


def test_no_command_shows_the_help(lowtide: Lowtide) -> None:
    """A newcomer who types the name alone sees what there is, each sentence whole."""
    outcome = lowtide()
    assert outcome.code == 0
    assert all(f"\n  {name} " in outcome.out for name in NAMES)
    assert "..." not in outcome.out.partition("\n")[2]


@pytest.mark.parametrize(
    ("args", "cause", "remedy"),
    [
        (["lss"], "No such command 'lss'. Did you mean 'ls'?", "lowtide --help"),
        (["logs"], "Missing argument 'JOB'", "lowtide logs --help"),
        (["submit", "--node", "2"], "--node", "lowtide submit --help"),
        (["submit", "x.py", "--nodes", "two"], "'--nodes'", "lowtide submit --help"),
        (["submit", "nowhere.py"], "There is no script 'nowhere.py'", "training script"),
        (["submit", "--from", "nowhere.yaml"], "nowhere.yaml", "--from"),
        (["submit", "x.py", "--deadline", "soon"], "--deadline: 'soon' is not", "--deadline"),
        (["submit", "x.py", "--tag", "a"], "--tag 'a'", "--tag model=resnet"),
        (["ls", "--state", "asleep"], "'asleep' is not a state", "queued, admitted"),
        (["ls", "--limit", "0"], "--limit", "lowtide ls --help"),
        (["evict", "node-1", "--notice", "soon"], "'soon' is not a duration", "30s"),
        (["simulate", "nowhere.yaml"], "nowhere.yaml", "path"),
        (["audit", "--database", "sqlite:///nowhere.db"], "no database 'nowhere.db'", "sqlite"),
        (["serve", "--config", "nowhere.yaml"], "nowhere.yaml", "--config"),
        (["serve", "--port", "99999"], "--port", "lowtide serve --help"),
        (["up", "--config", "nowhere.yaml"], "nowhere.yaml", "--config"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_ends_with_cause_remedy_and_2(
    lowtide: Lowtide, args: list[str], cause: str, remedy: str
) -> None:
    """Two lines on standard error and nothing on standard output; with --json one object."""
    outcome = lowtide(*args)
    lines = outcome.err.splitlines()
    assert (outcome.code, outcome.out, len(lines)) == (2, "", 2), outcome
    assert lines[0].startswith("error: ")
    assert cause in lines[0]
    assert lines[1].startswith("  fix: ")
    assert remedy in lines[1]
    told = lowtide(*args, "--json")
    assert (told.code, told.err) == (2, "")
    assert set(told.data["error"]) == {"code", "cause", "remedy"}
    assert cause in told.data["error"]["cause"]


def test_no_server_ends_with_3(lowtide: Lowtide, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither known nor listening: the remedy is the command that starts one."""
    unknown = lowtide("ls")
    assert unknown.code == 3
    assert "lowtide up" in unknown.err
    monkeypatch.setenv("LOWTIDE_SERVER", "http://127.0.0.1:9")
    monkeypatch.setenv("LOWTIDE_TOKEN", "x")
    monkeypatch.setattr("scheduler.cli.output.CLI_PATIENCE_S", 0.0)
    silent = lowtide("ls", "--json")
    assert silent.code == 3
    assert silent.data["error"]["code"] == "unreachable"


def test_a_refused_token_ends_with_2(
    api: TinyApi, lowtide: Lowtide, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wrong credentials are named as such."""
    monkeypatch.setenv("LOWTIDE_TOKEN", "wrong")
    outcome = lowtide("ls")
    assert outcome.code == 2
    assert "The token is not this server's." in outcome.err
    assert "Set LOWTIDE_TOKEN" in outcome.err


def test_what_a_server_says_stays_on_one_line(api: TinyApi, lowtide: Lowtide) -> None:
    """Line breaks and brackets in a cause do not break the form."""
    api.on("GET", "/v1/nodes", problem("conflict", "a\nb [red]", "c\nd"), status=409)
    assert lowtide("nodes").err == "error: a b [red]\n  fix: c d\n"


def test_json_behind_the_dashes_is_the_scripts_own(lowtide: Lowtide) -> None:
    """`-- --json` belongs to the training script, so our error stays text."""
    outcome = lowtide("submit", "nowhere.py", "--", "--json")
    assert outcome.out == ""
    assert outcome.err.startswith("error: ")


def test_a_library_cannot_write_between_our_lines(capfd: pytest.CaptureFixture[str]) -> None:
    """A solver's greeting, printed below Python, does not break --json."""
    with own_stdout():
        os.write(1, b"hello from below\n")
    os.write(1, b"ours\n")
    assert capfd.readouterr() == ("ours\n", "hello from below\n")


def test_an_interrupt_ends_with_130(monkeypatch: pytest.MonkeyPatch, lowtide: Lowtide) -> None:
    """Ctrl-C is neither a success nor a traceback."""

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("scheduler.cli.output.client", interrupt)
    monkeypatch.setattr("scheduler.cli.looking.client", interrupt)
    assert run(["ls"]) == 130


def test_a_closed_pipe_is_no_error(tmp_path: Path) -> None:
    """`lowtide ... | head` ends quietly."""
    command = f"{sys.executable} -m scheduler.cli --help | head -c 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], check=False, capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    assert done.returncode in (0, 141)


@pytest.mark.parametrize(
    ("args", "unwanted"), [(["--help"], HEAVY), (["submit", "--help"], HEAVY[:6])]
)
def test_help_loads_nothing_heavy(args: list[str], unwanted: tuple[str, ...]) -> None:
    """What a help text needs is Typer and the sentences (and pydantic, which Typer wants)."""
    script = (
        f"import sys\nfrom scheduler.cli.app import run\nrun({args})\n"
        f"heavy = set({unwanted}) & set(sys.modules)\nassert not heavy, heavy"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_help_answers_within_its_time() -> None:
    """`lowtide --help` takes less than 0.3 s of computing; the quickest of five counts."""
    assert min(cpu_seconds("--help") for _ in range(5)) < 0.3


def cpu_seconds(*args: str) -> float:
    """Measure a command's own computing time, which a busy machine does not stretch much."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "scheduler.cli", *args], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
