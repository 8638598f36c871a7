"""The house rules that no linter knows, as tests.

The numbers are a ratchet: tighten them when the code allows it, never loosen them.
"""

from __future__ import annotations

import ast
import importlib.metadata
import re
import statistics
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from enum import StrEnum
from functools import cache
from pathlib import Path

import pytest

from jobs import states
from jobs.reasons import HELP, Reason

MAX_FUNCTION_LINES = 50  # docstring included
MEDIAN_FUNCTION_LINES = 8  # docstrings left out, here and below
P90_FUNCTION_LINES = 30
MAX_FILE_LINES = 400
MEDIAN_FILE_LINES = 150

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("scheduler", "checkpointing", "jobs", "cluster")
MEASURED = (*PACKAGES, "benchmarks")
TOP_LEVEL = {
    *MEASURED,
    ".ci",
    ".gitignore",
    "CHANGELOG.md",
    "LICENSE",
    "Makefile",
    "README.md",
    "constraints.txt",
    "docs",
    "pyproject.toml",
    "tests",
}
# Decisions, states and arithmetic: each that exists is under the import contract "Pure modules".
PURE = {
    "checkpointing.cadence",
    "checkpointing.catalog_tree",
    "checkpointing.commit",
    "checkpointing.control",
    "checkpointing.hazard_posterior",
    "checkpointing.identity",
    "checkpointing.inventory",
    "checkpointing.keys",
    "checkpointing.layout",
    "checkpointing.manifest",
    "checkpointing.notice_budget",
    "checkpointing.pacer",
    "checkpointing.retention",
    "checkpointing.safetensors_layout",
    "checkpointing.sealed",
    "cluster.flavors",
    "cluster.gang",
    "cluster.hazard",
    "cluster.intents",
    "cluster.notices",
    "cluster.offers",
    "cluster.prices",
    "jobs.durations",
    "jobs.errors",
    "jobs.budget",
    "jobs.budget_events",
    "jobs.budget_fold",
    "jobs.events",
    "jobs.fold",
    "jobs.hash_chain",
    "jobs.ledger.accounts",
    "jobs.ledger.entries",
    "jobs.ledger.legs",
    "jobs.ledger.periods",
    "jobs.ledger.reconcile",
    "jobs.ledger.split",
    "jobs.ledger.statement",
    "jobs.phases",
    "jobs.reasons",
    "jobs.rows",
    "jobs.spec",
    "jobs.state",
    "jobs.states",
    "scheduler.admission",
    "scheduler.affordability",
    "scheduler.audit",
    "scheduler.audit_fold",
    "scheduler.audit_rows",
    "scheduler.baselines",
    "scheduler.audit_budgets",
    "scheduler.budget_changes",
    "scheduler.budget_desk",
    "scheduler.budget_leaving",
    "scheduler.budget_periods",
    "scheduler.budget_purses",
    "scheduler.budget_sentences",
    "scheduler.budget_status",
    "scheduler.budget_view",
    "scheduler.budgets",
    "scheduler.cost_to_go",
    "scheduler.decide",
    "scheduler.endings",
    "scheduler.horizon",
    "scheduler.learned_windows",
    "scheduler.horizon_forecast",
    "scheduler.horizon_gap",
    "scheduler.horizon_inflow",
    "scheduler.horizon_model",
    "scheduler.horizon_steer",
    "scheduler.horizon_yield",
    "scheduler.lowtide",
    "scheduler.market",
    "scheduler.metering",
    "scheduler.needs",
    "scheduler.observe",
    "scheduler.open_intents",
    "scheduler.outlook",
    "scheduler.placement",
    "scheduler.plan",
    "scheduler.preemption",
    "scheduler.price_book",
    "scheduler.reconcile",
    "scheduler.recorder",
    "scheduler.risk",
    "scheduler.scaling",
    "scheduler.sentences",
    "scheduler.snapshot",
    "scheduler.spending",
    "scheduler.spot_policy",
    "scheduler.stop_room",
    "scheduler.stretches",
    "scheduler.survival",
    "scheduler.suspension",
    "scheduler.window_report",
    "scheduler.windows",
    "scheduler.wishes",
}
MACHINES = (
    (states.JobState, states.JOB_EDGES, states.JOB_ENDS),
    (states.AttemptState, states.ATTEMPT_EDGES, states.ATTEMPT_ENDS),
    (states.NodeState, states.NODE_EDGES, frozenset({states.NodeState.GONE})),
)

Function = ast.FunctionDef | ast.AsyncFunctionDef
Documented = ast.Module | ast.ClassDef | Function


@cache
def sources() -> dict[Path, ast.Module]:
    """Every measured file, by its path from the root."""
    found = sorted(path for top in MEASURED for path in (ROOT / top).rglob("*.py"))
    return {path.relative_to(ROOT): ast.parse(path.read_bytes()) for path in found}


@cache
def tracked() -> list[str]:
    """The paths that git has or would take; outside a checkout the test is skipped."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip("not a git checkout")
    return [path for path in done.stdout.splitlines() if (ROOT / path).is_file()]


@cache
def project() -> dict[str, dict]:
    """`pyproject.toml`."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def functions() -> Iterator[tuple[str, Function]]:
    """Every function and method, nested ones included, with the place to look at."""
    for path, tree in sources().items():
        for node in ast.walk(tree):
            if isinstance(node, Function):
                yield f"{path}:{node.lineno} {node.name}", node


def length(node: ast.stmt) -> int:
    """The lines that a statement takes."""
    assert node.end_lineno is not None
    return node.end_lineno - node.lineno + 1


def length_of_code(node: Function) -> int:
    """The lines of a function without its docstring."""
    return length(node) - (length(node.body[0]) if ast.get_docstring(node) is not None else 0)


def lines_of(path: Path) -> int:
    """The lines of a file."""
    return len((ROOT / path).read_text(encoding="utf-8").splitlines())


def undocumented(path: Path, node: Documented) -> Iterator[str]:
    """The public names of a module or class, itself included, that have no docstring."""
    name = getattr(node, "name", "the module")
    if name.startswith("_"):
        return
    if ast.get_docstring(node) is None and not is_excused(node):
        yield f"{path}:{getattr(node, 'lineno', 1)} {name}"
    if not isinstance(node, Function):
        for child in node.body:
            if isinstance(child, ast.ClassDef | Function):
                yield from undocumented(path, child)


def is_excused(node: Documented) -> bool:
    """Whether another definition of the same name carries the docstring."""
    marks = {ast.unparse(mark).rsplit(".", 1)[-1] for mark in getattr(node, "decorator_list", [])}
    return bool(marks & {"overload", "override", "setter"})


def third_party(tree: ast.Module) -> set[str]:
    """The top-level names of what a file imports that is neither ours nor Python's."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
    return names - sys.stdlib_module_names - set(MEASURED) - {"tests"}


def declared(*extras: str) -> set[str]:
    """The distributions that the project names, in the core and in these extras."""
    table = project()["project"]
    lines = [*table["dependencies"]]
    for extra in extras:
        lines += table["optional-dependencies"][extra]
    return {
        re.split(r"[\[<>=~! ]", line, maxsplit=1)[0].lower().replace("_", "-") for line in lines
    }


@cache
def owners() -> dict[str, set[str]]:
    """For each name that can be imported, the distributions that bring it."""
    found = importlib.metadata.packages_distributions()
    return {name: {o.lower().replace("_", "-") for o in them} for name, them in found.items()}


def undeclared(path: Path, allowed: set[str]) -> list[str]:
    """The imports of a file that none of the allowed distributions brings."""
    names = sorted(third_party(sources()[path]))
    return [f"{path}: {name}" for name in names if not owners().get(name, set()) & allowed]


def reachable(start: StrEnum, edges: frozenset[tuple[StrEnum, StrEnum]]) -> set[StrEnum]:
    """The states that can follow, the first included."""
    seen = {start}
    while more := {new for old, new in edges if old in seen} - seen:
        seen |= more
    return seen


def test_no_function_is_long() -> None:
    """A function fits on one screen, docstring included."""
    long = [f"{where}: {length(f)}" for where, f in functions() if length(f) > MAX_FUNCTION_LINES]
    assert not long, f"more than {MAX_FUNCTION_LINES} lines"


def test_functions_are_short_as_a_rule() -> None:
    """Half of the functions are very short, and nine of ten are short."""
    lengths = [length_of_code(function) for _, function in functions()]
    assert statistics.median(lengths) <= MEDIAN_FUNCTION_LINES
    assert statistics.quantiles(lengths, n=10)[-1] <= P90_FUNCTION_LINES


def test_files_are_short() -> None:
    """No file is long, and half of them are short."""
    lengths = {str(path): lines_of(path) for path in sources()}
    assert not {path: n for path, n in lengths.items() if n > MAX_FILE_LINES}
    assert statistics.median(lengths.values()) <= MEDIAN_FILE_LINES


def test_everything_public_has_a_docstring() -> None:
    """Each module, public class, function and method says what it is for."""
    assert not [name for path, tree in sources().items() for name in undocumented(path, tree)]


def test_nothing_is_global() -> None:
    """No function rebinds a module's name: state has an owner."""
    assert not [
        f"{path}:{node.lineno}"
        for path, tree in sources().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Global)
    ]


def test_the_top_level_holds_only_what_it_should() -> None:
    """A newcomer sees the four packages, the tests and a few well-known files."""
    assert {path.partition("/")[0] for path in tracked()} <= TOP_LEVEL


def test_nothing_names_a_path_of_one_machine() -> None:
    """The tree works wherever it lies."""
    personal = re.compile(rb"(?<![\w.])/(?:work|root|home|Users)/\w")
    assert not [path for path in tracked() if personal.search((ROOT / path).read_bytes())]


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine[0].__name__)
def test_every_state_is_reachable_and_none_is_a_trap(
    machine: tuple[type[StrEnum], frozenset[tuple[StrEnum, StrEnum]], frozenset[StrEnum]],
) -> None:
    """Each state can come about, and all but the ends lead on to an end."""
    kinds, edges, ends = machine
    assert reachable(next(iter(kinds)), edges) == set(kinds)
    assert all(reachable(state, edges) & ends for state in kinds)
    assert not [edge for edge in edges if edge[0] in ends]


def test_the_readme_lists_every_reason() -> None:
    """The README's table is the code's table, in the code's words and order."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    table = readme.partition("<!-- reasons: begin -->")[2].partition("<!-- reasons: end -->")[0]
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    assert rows == [f"| `{reason.value}` | {HELP[reason]} |" for reason in Reason]


def test_pure_modules_are_under_their_contract() -> None:
    """Each pure module that exists is checked for what it must not reach."""
    contracts = project()["tool"]["importlinter"]["contracts"]
    pure = next(c for c in contracts if c["name"].startswith("Pure modules"))
    present = {".".join(path.with_suffix("").parts) for path in sources()}
    assert PURE & present <= set(pure["source_modules"])


def test_imports_are_declared() -> None:
    """Nothing works only because some other package happens to bring what we import."""
    table = project()["project"]["optional-dependencies"]
    allowed = declared(*(name for name in table if name != "all"))
    assert not [line for path in sources() for line in undeclared(path, allowed)]


def test_a_training_image_needs_only_its_extra() -> None:
    """`checkpointing` imports nothing beyond `lowtide[train]` and the user's own torch."""
    allowed = declared("train") | {"torch"}
    mine = [path for path in sources() if path.parts[0] == "checkpointing"]
    core = [path for path in mine if path.parts[1] != "integrations"]
    assert not [line for path in core for line in undeclared(path, allowed)]
    assert not [line for path in mine for line in undeclared(path, allowed | declared("trainers"))]
