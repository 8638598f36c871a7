"""Nodes of somebody else's cluster: seen, named, never touched."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cluster.flavors import Flavor
from cluster.notices import LaunchFailed, NodeJoined, NodeLost, NodeReleased
from cluster.providers.static import StaticOptions, StaticProvider, parse_options
from cluster.ray_nodes import SeenNode
from jobs.errors import FileFormatError
from jobs.spec import Market

T4 = Flavor(
    name="spot-t4",
    cluster="prem",
    market=Market.SPOT,
    accelerator="t4",
    region="r",
    zone="z",
    gpu_milli=1_000,
    cpus=4,
)
A100 = replace(T4, name="own-a100", market=Market.RESERVED, accelerator="a100", gpu_milli=8_000)
NODE = SeenNode(
    ray_id="f" * 56,
    alive=True,
    address="10.0.0.2",
    is_head=False,
    labels={"ray.io/market-type": "spot", "ray.io/accelerator-type": "t4"},
    cpus=4,
    gpus=1,
)
NODE_ID = "prem-ffffffffffff"


class View:
    """What Ray says."""

    def __init__(self, *nodes: SeenNode) -> None:
        """These nodes."""
        self.seen = list(nodes)

    def nodes(self) -> list[SeenNode]:
        """Give them."""
        return self.seen

    def drain(self, ray_id: str, *, deadline_us: int) -> None:
        """Nobody drains here."""
        raise AssertionError(ray_id)


def a_provider(view: View, **options: object) -> StaticProvider:
    """A provider that sees this."""
    return StaticProvider(
        "prem",
        flavors={f.name: f for f in (A100, T4)},
        options=StaticOptions(address="head:1", **options),  # type: ignore[arg-type]
        view=view,
    )


def test_a_node_that_appears_is_told_once_with_its_flavor_and_size() -> None:
    """Labels say the market and the accelerator, Ray says the size and the id."""
    provider = a_provider(View(NODE))
    [joined] = provider.poll()
    assert isinstance(joined, NodeJoined)
    assert (joined.node_id, joined.address) == (NODE_ID, NODE.ray_id)
    assert (joined.flavor, joined.cluster) == ("spot-t4", "prem")
    assert (joined.gpu_milli, joined.cpus) == (1_000, 4)
    assert provider.poll() == []


def test_a_flavor_may_be_named_by_label_or_by_address() -> None:
    """The most explicit name wins; a node that fits nothing stays out."""
    labelled = replace(NODE, labels={"lowtide.dev/flavor": "own-a100"}, gpus=8)
    [joined] = a_provider(View(labelled)).poll()
    assert isinstance(joined, NodeJoined)
    assert joined.flavor == "own-a100"
    [mapped] = a_provider(View(labelled), flavors={"10.0.0.2": "spot-t4"}).poll()
    assert isinstance(mapped, NodeJoined)
    assert mapped.flavor == "spot-t4"
    assert a_provider(View(replace(NODE, cpus=1))).poll() == []
    assert a_provider(View(replace(NODE, labels={"ray.io/market-type": "on-demand"}))).poll() == []


def test_a_node_is_lost_only_when_ray_says_that_it_is_dead() -> None:
    """An empty answer is a deaf control store, not the end of all nodes."""
    view = View(NODE)
    provider = a_provider(view)
    provider.poll()
    view.seen = []
    assert provider.poll() == []
    view.seen = [replace(NODE, alive=False)]
    [lost] = provider.poll()
    assert isinstance(lost, NodeLost)
    assert (lost.node_id, lost.noticed) == (NODE_ID, False)


def test_launches_are_refused_and_releases_answered() -> None:
    """The text says why, and the node stays with whoever runs it."""
    provider = a_provider(View(NODE))
    provider.poll()
    provider.launch("new", flavor=T4)
    provider.release(NODE_ID)
    provider.evict(NODE_ID, notice_ms=0)
    failed, released = provider.poll()
    assert isinstance(failed, LaunchFailed)
    assert "static" in failed.detail
    assert isinstance(released, NodeReleased)


def test_wrong_options_name_the_field() -> None:
    """A typo in the server's settings is told in one line."""
    with pytest.raises(FileFormatError, match="address"):
        parse_options({})
