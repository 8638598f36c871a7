"""A price feed that stops, or says nonsense: the last good price is kept, and it ages."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from cluster.prices import FeedPrices
from scheduler.market import Tape
from scheduler.price_book import PriceBook
from scheduler.price_feed import FileFeed
from tests.unit.scheduler.worlds import HOUR, USD, a_flavor, an_offer

SPOT = a_flavor("spot", usd=3)
MINUTE = HOUR // 60


def a_feed() -> FeedPrices:
    """Give a feed that speaks every five minutes and said 2 dollars at 01:00."""
    feed = FeedPrices([SPOT], source="feed", every_us=5 * MINUTE)
    feed.take(HOUR, {"spot": 2 * USD})
    return feed


def test_a_feed_in_time_is_not_doubted() -> None:
    """Before its first word the configured price holds; then its own, without an age."""
    feed = a_feed()
    assert feed.base("spot", HOUR - 1).usd_nanos_per_hour == 3 * USD
    price = feed.base("spot", HOUR + 14 * MINUTE)
    assert (price.usd_nanos_per_hour, price.age_us(HOUR + 14 * MINUTE)) == (2 * USD, 0)


def test_a_feed_that_stops_keeps_its_price_and_is_doubted_more_and_more() -> None:
    """The price never becomes zero; its age is shown, and the doubt grows to a limit."""
    feed = a_feed()
    doubts = []
    for hours in (1, 5, 30, 500):
        price = feed.base("spot", HOUR + hours * HOUR)
        assert price.usd_nanos_per_hour == 2 * USD
        assert price.age_us(HOUR + hours * HOUR) == hours * HOUR
        doubts.append(price.doubt_permille(HOUR + hours * HOUR))
    assert doubts == [20, 100, 600, 1_000]


def test_decisions_take_an_old_price_as_dearer_and_bills_do_not() -> None:
    """The offer keeps the price that was heard; what a job would cost follows the doubt."""
    old = an_offer(SPOT, usd_nanos_per_hour=2 * USD, price_doubt_permille=100)
    assert Tape(old, now_us=0).cost(0, HOUR) == 22 * USD // 10
    book = PriceBook(a_feed(), [SPOT])
    assert book.at("spot", 6 * HOUR).usd_nanos_per_hour == 2 * USD
    assert book.rests_on("spot", at_us=6 * HOUR) == "price last heard 1 Jan 01:00 UTC"
    assert not book.rests_on("spot", at_us=HOUR + MINUTE)


@pytest.mark.parametrize("bad", [-1, 0, None, "cheap", True, 1.5])
def test_nonsense_is_put_aside_and_named(bad: object) -> None:
    """The last good price holds and ages; the flavor is named until it is well again."""
    feed = a_feed()
    feed.take(2 * HOUR, {"spot": bad})
    price = feed.base("spot", 2 * HOUR)
    assert (price.usd_nanos_per_hour, price.heard_us) == (2 * USD, HOUR)
    assert list(feed.refused) == ["spot"]
    feed.take(3 * HOUR, {"spot": 4 * USD})
    assert not feed.refused
    assert feed.base("spot", 3 * HOUR).usd_nanos_per_hour == 4 * USD


def test_a_file_is_a_feed_as_old_as_its_last_writing(tmp_path: Path) -> None:
    """It is read when it changes; a broken file, or a negative price, changes nothing."""
    path = tmp_path / "prices.json"
    prices = FeedPrices([SPOT], source="file", every_us=5 * MINUTE)
    feed = FileFeed(path, prices=prices, every_s=1)  # there is no file yet
    for at_us, text, usd in (
        (HOUR, json.dumps({"spot": 1.25}), 1.25),
        (2 * HOUR, "{", 1.25),
        (3 * HOUR, json.dumps({"spot": -2}), 1.25),
        (4 * HOUR, json.dumps({"spot": 2, "moon": 1}), 2),
    ):
        path.write_text(text, encoding="utf-8")
        os.utime(path, ns=(at_us * 1_000, at_us * 1_000))
        feed.poll()
        assert prices.base("spot", at_us).usd_nanos_per_hour == usd * USD
    assert prices.refused == {"moon": "no flavor is called so"}
    assert prices.base("spot", 9 * HOUR).age_us(9 * HOUR) == 5 * HOUR
