"""The chain of hashes names every way in which it can be broken."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from jobs.hash_chain import GENESIS, Link, broken_links, next_hash

BODIES = st.lists(st.text(max_size=20), min_size=2, max_size=8)


def chain(bodies: list[str]) -> list[Link]:
    """A sound chain."""
    links: list[Link] = []
    for pos, body in enumerate(bodies, start=1):
        before = links[-1].hash if links else GENESIS
        links.append(Link(pos=pos, prev_hash=before, hash=next_hash(before, body=body), body=body))
    return links


@given(BODIES)
def test_a_sound_chain_has_no_findings(bodies: list[str]) -> None:
    """Also an empty one."""
    assert broken_links(chain(bodies)) == []
    assert broken_links([]) == []


@given(BODIES, st.data())
def test_any_change_is_found(bodies: list[str], data: st.DataObject) -> None:
    """A changed body, with or without its hash made to fit, cannot hide before the end."""
    links = chain(bodies)
    at = data.draw(st.integers(0, len(links) - 2))
    body = links[at].body + "!"
    links[at] = replace(links[at], body=body)
    assert broken_links(links)
    links[at] = replace(links[at], hash=next_hash(links[at].prev_hash, body=body))
    assert broken_links(links) == [f"entry {at + 2} does not follow the one before it"]


@given(BODIES, st.data())
def test_any_removal_but_the_last_is_found(bodies: list[str], data: st.DataObject) -> None:
    """Gaps are named, and renumbering does not help."""
    links = chain(bodies)
    del links[data.draw(st.integers(0, len(links) - 2))]
    assert broken_links(links)
    renumbered = [replace(link, pos=pos) for pos, link in enumerate(links, start=1)]
    assert broken_links(renumbered)
