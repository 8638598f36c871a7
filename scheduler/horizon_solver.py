"""HiGHS, the solver of linear programs, behind one function."""

from __future__ import annotations

import highspy
import numpy as np
from highspy._core import _Highs

from scheduler.horizon_model import Program, Solution


class SolverLimitError(Exception):
    """The solver stopped at a limit before it had an optimum."""


def solve(
    program: Program, *, iterations: int | None = None, wall_s: float | None = None
) -> Solution | None:
    """Give an optimum, None when there is no way to meet all demands.

    Args:
        program: what to solve.
        iterations: stop after so many steps of the simplex method; the same on every machine.
        wall_s: stop after so many seconds; it keeps a busy server alive and is never needed for
            a result to be the same twice, because a result that it cuts off is dropped.

    Raises:
        SolverLimitError: a limit was reached.
    """
    solver = _Highs()  # highspy.Highs prints a banner on stdout before it can be silenced
    options: dict[str, bool | int | float | str] = {"output_flag": False, "threads": 1}
    options["solver"] = "simplex"  # its duals are those of a vertex, and a step limit is exact
    if iterations is not None:
        options["simplex_iteration_limit"] = iterations
    if wall_s is not None:
        options["time_limit"] = wall_s
    for name, value in options.items():
        solver.setOptionValue(name, value)
    solver.passModel(_model(program))
    solver.run()
    status = solver.getModelStatus()
    if status == highspy.HighsModelStatus.kInfeasible:
        return None
    if status != highspy.HighsModelStatus.kOptimal:
        raise SolverLimitError(str(status))
    found, info = solver.getSolution(), solver.getInfo()
    return Solution(
        usd=float(info.objective_function_value),
        columns=np.array(found.col_value),
        duals=np.array(found.row_dual),
        iterations=int(info.simplex_iteration_count),
    )


def _model(program: Program) -> highspy.HighsLp:
    lp = highspy.HighsLp()
    lp.num_col_, lp.num_row_ = len(program.cost), len(program.row_lower)
    lp.col_cost_, lp.col_lower_ = program.cost, np.zeros(len(program.cost))
    lp.col_upper_ = program.upper
    lp.row_lower_, lp.row_upper_ = program.row_lower, program.row_upper
    lp.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    lp.a_matrix_.start_ = program.starts.astype(np.int32)
    lp.a_matrix_.index_ = program.rows.astype(np.int32)
    lp.a_matrix_.value_ = program.values
    return lp
