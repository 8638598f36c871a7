"""Prices under windows: what holds now, what is known ahead, and what must not be."""

from __future__ import annotations

from datetime import UTC, datetime

from cluster.prices import FlatPrices, SeriesPrices, StepSeries
from jobs.durations import to_us
from scheduler.price_book import PriceBook, scaled
from scheduler.windows import PriceWindow
from tests.unit.scheduler.worlds import HOUR, USD, a_flavor

MIDNIGHT = to_us(datetime(2026, 6, 1, tzinfo=UTC))
SPOT = a_flavor("spot", usd=2)
NIGHT = PriceWindow(name="night", start_s=22 * 3_600, end_s=6 * 3_600, price_percent=60)
DEEP = PriceWindow(name="deep", start_s=2 * 3_600, end_s=4 * 3_600, price_percent=25)


def book(*windows: PriceWindow) -> PriceBook:
    """Give a book of one flavor at two dollars."""
    return PriceBook(FlatPrices([SPOT]), [SPOT], windows)


def test_the_lowest_of_several_open_windows_wins() -> None:
    """Inside the night a deeper window takes over, and its name says so."""
    prices = book(NIGHT, DEEP)
    assert prices.at("spot", MIDNIGHT + 12 * HOUR).usd_nanos_per_hour == 2 * USD
    assert prices.at("spot", MIDNIGHT + 1 * HOUR).usd_nanos_per_hour == 12 * USD // 10
    deep = prices.at("spot", MIDNIGHT + 3 * HOUR)
    assert (deep.usd_nanos_per_hour, deep.source) == (USD // 2, "configured, window deep")
    assert deep.list_usd_nanos_per_hour == 2 * USD


def test_known_steps_are_the_edges_of_windows() -> None:
    """``ahead`` gives each change of price between the instants, and nothing that stays."""
    steps = book(NIGHT, DEEP).ahead("spot", MIDNIGHT + 12 * HOUR, MIDNIGHT + 36 * HOUR)
    assert steps == (
        (MIDNIGHT + 22 * HOUR, 12 * USD // 10),
        (MIDNIGHT + 26 * HOUR, USD // 2),
        (MIDNIGHT + 28 * HOUR, 12 * USD // 10),
        (MIDNIGHT + 30 * HOUR, 2 * USD),
    )


def test_a_recorded_series_is_not_known_ahead() -> None:
    """A policy sees windows on the price of now; tomorrow's market stays hidden."""
    series = StepSeries((0, MIDNIGHT + 15 * HOUR), (2 * USD, 9 * USD))
    source = SeriesPrices({"spot": series}, flavors=[SPOT], source="recorded")
    prices = PriceBook(source, [SPOT], [NIGHT])
    noon = MIDNIGHT + 12 * HOUR
    assert prices.ahead("spot", noon, noon + 11 * HOUR) == ((noon + 10 * HOUR, 12 * USD // 10),)
    assert prices.next_change_us("spot", noon) == noon + 3 * HOUR
    published = PriceBook(source, [SPOT], [NIGHT], source_known_ahead=True)
    assert published.ahead("spot", noon, noon + 11 * HOUR) == (
        (noon + 3 * HOUR, 9 * USD),
        (noon + 10 * HOUR, 54 * USD // 10),
    )


def test_answers_do_not_depend_on_what_was_asked_before() -> None:
    """The remembered edges serve any order of instants, earlier ones too."""
    instants = [MIDNIGHT + hour * HOUR for hour in (40, 3, 100, 1, 23, 70, 3)]
    used = book(NIGHT, DEEP)
    for at_us in instants:
        assert used.at("spot", at_us) == book(NIGHT, DEEP).at("spot", at_us)
        assert used.next_change_us("spot", at_us) == book(NIGHT, DEEP).next_change_us("spot", at_us)


def test_without_windows_nothing_changes() -> None:
    """No edge, no known step, nothing that it rests on."""
    prices = book()
    assert prices.next_change_us("spot", MIDNIGHT) is None
    assert prices.ahead("spot", MIDNIGHT, MIDNIGHT + 100 * HOUR) == ()
    assert prices.rests_on("spot") == ""
    assert book(NIGHT).rests_on("spot") == "night (tariff)"


def test_percentages_round_to_the_nearest_nano() -> None:
    """Money stays integer."""
    assert [scaled(x, percent=33) for x in (1, 2, 5, 100)] == [0, 1, 2, 33]


def test_a_published_price_is_known_so_far_ahead_and_no_further() -> None:
    """A day-ahead tariff ends with the day that was published."""
    series = StepSeries.regular([2 * USD, 3 * USD, 4 * USD], start_us=MIDNIGHT, step_us=HOUR)
    source = SeriesPrices({"spot": series}, flavors=[SPOT], source="tariff")
    prices = PriceBook(source, [SPOT], source_known_ahead={"spot": 2 * HOUR})
    for _ in range(2):  # the second answer is remembered
        assert prices.ahead("spot", MIDNIGHT, MIDNIGHT + 9 * HOUR) == ((MIDNIGHT + HOUR, 3 * USD),)
    later = MIDNIGHT + HOUR
    assert prices.ahead("spot", later, MIDNIGHT + 9 * HOUR) == ((MIDNIGHT + 2 * HOUR, 4 * USD),)
    assert prices.rests_on("spot") == "published price (tariff)"
