"""Agent, workers and Ray together: real raylets, real training processes."""

from __future__ import annotations

import pytest

from cluster.notices import Outcome, WorkersUp

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


def test_a_script_runs_on_a_node_and_its_output_comes_back(server, agent) -> None:
    """The happy path: launch, start, exit code 0, all output at the server."""
    nodes = server.joined("n1")
    spec = server.spec("import os\nprint('hello from', os.environ['RANK'])\n", gpus=1)
    server.start("hello/1", spec=spec, nodes=nodes)
    over = server.over("hello/1")
    assert (over.outcome, over.exit_code) == (Outcome.SUCCEEDED, 0)
    assert len(server.of(WorkersUp, attempt_id="hello/1")) == 1
    server.wait_for(lambda: "hello from 0\n" in server.log("hello/1"), limit_s=10)
