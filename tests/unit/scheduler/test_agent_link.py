"""The agents' link: it wakes whoever waits and keeps nothing of those who left."""

from __future__ import annotations

from cluster.intents import LaunchNode
from scheduler.agent_link import AgentLinkDriver

INTENT = LaunchNode(id="launch|n", cluster="c", node_id="n", flavor="f")


def test_an_intent_wakes_the_agents_of_its_cluster() -> None:
    """Those of another cluster sleep on."""
    link = AgentLinkDriver()
    mine, other = link.ticket("c"), link.ticket("d")
    link.submit(INTENT)
    assert (mine.done(), other.done()) == (True, False)


def test_a_broken_off_wait_leaves_nothing_behind() -> None:
    """An idle cluster polls for ever; its past polls must not pile up."""
    link = AgentLinkDriver()
    for _ in range(50):
        link.ticket("c").cancel()
    assert link.waiting("c") == 0
