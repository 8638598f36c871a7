"""The configuration file: what it becomes, and what each mistake in it is answered with."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.errors import FileFormatError
from jobs.spec import Market
from scheduler.settings import Settings, default_settings, load_settings, parse_settings

BASE = """\
clusters:
  - name: lab
    provider: static
    flavors:
      - name: a-spot
        market: spot
        accelerator: L4
        gpus: 2
        price_usd_per_hour: 0.123456789
        on_demand_price_usd_per_hour: 0.7
        max_nodes: 4
        boot: 1m30s
        notice: 120
      - name: a-od
        market: on-demand
        price_usd_per_hour: 0.7
        max_nodes: 2
"""
WINDOW = "price_windows:\n  - {name: night, price_percent: 60, flavors: [a-spot], "


def parsed(text: str) -> Settings:
    """Parse a configuration called ``f.yaml``."""
    return parse_settings(text, source="f.yaml")


def refusal(text: str) -> FileFormatError:
    """Give the error that a configuration is refused with."""
    with pytest.raises(FileFormatError) as caught:
        parsed(text)
    return caught.value


def test_a_flavor_keeps_its_price_to_the_nano_dollar() -> None:
    """Prices, GPUs and durations become exact integers in the scheduler's units."""
    flavor = parsed(BASE).flavors["a-spot"]
    assert (flavor.usd_nanos_per_hour, flavor.list_usd_nanos_per_hour) == (123_456_789, 7 * 10**8)
    assert (flavor.gpu_milli, flavor.boot_ms, flavor.notice_ms) == (2_000, 90_000, 120_000)
    assert (flavor.cluster, flavor.market, flavor.zone) == ("lab", Market.SPOT, "local")


def test_a_market_without_a_list_price_is_its_own() -> None:
    """On-demand needs no second price: savings against itself are zero."""
    flavor = parsed(BASE).flavors["a-od"]
    assert flavor.list_usd_nanos_per_hour == flavor.usd_nanos_per_hour == 7 * 10**8


def test_a_time_of_day_without_quotes_is_no_base_60_number() -> None:
    """YAML 1.1 would read 22:00 as 1320; here it is ten in the evening."""
    text = BASE + WINDOW + "start: 22:00, end: 06:00:30, days: [fri, Mon]}\n"
    (window,) = parsed(text).windows
    assert (window.start_s, window.end_s, window.days) == (79_200, 21_630, (0, 4))


def test_midnight_at_the_end_is_the_next_days() -> None:
    """24:00 ends a day, so 00:00 to 24:00 is a whole one and 22:00 to 24:00 two hours."""
    for start, end in (("22:00", "24:00"), ("00:00", "24:00")):
        (window,) = parsed(BASE + WINDOW + f"start: '{start}', end: '{end}'}}\n").windows
        assert window.end_s == 0


def test_the_built_in_configuration_is_usable() -> None:
    """Without a file there is a spot and an on-demand flavor of the same GPU."""
    spot, fixed = default_settings().flavors.values()
    assert (spot.market, fixed.market) == (Market.SPOT, Market.ON_DEMAND)
    assert spot.accelerator == fixed.accelerator
    assert spot.list_usd_nanos_per_hour == fixed.usd_nanos_per_hour > spot.usd_nanos_per_hour


@pytest.mark.parametrize(
    ("text", "cause", "remedy"),
    [
        (BASE + "polcy: {}\n", "line 18, field 'polcy': unknown field", "Did you mean 'policy'?"),
        (
            BASE.replace("accelerator", "acelerator"),
            "line 7, field 'clusters.0.flavors.0.acelerator': unknown field",
            "Did you mean 'accelerator'?",
        ),
        (BASE.replace("0.123456789", "-1"), "line 9", "got -1"),
        (BASE.replace("0.123456789", "0.1234567891"), "at most nine decimals", "Correct it"),
        (
            BASE.replace("        on_demand_price_usd_per_hour: 0.7\n", ""),
            "line 5, field 'clusters.0.flavors.0': a spot flavor needs on_demand_price",
            "Correct it",
        ),
        (
            BASE.replace("        price_usd_per_hour: 0.7\n", ""),
            "line 14, field 'clusters.0.flavors.1.price_usd_per_hour': it is missing",
            "Add 'price_usd_per_hour'.",
        ),
        (BASE.replace("a-od", "a-spot"), "two flavors called 'a-spot'", "Rename one"),
        (BASE.replace("static", "aws-batch"), "line 3", "Correct it"),
        (
            BASE + WINDOW + "time_zone: Europe/Berln}\n",
            "line 19, field 'price_windows.0.time_zone'",
            "Correct it",
        ),
        (BASE + WINDOW + "start: '22:00', end: '22:00'}\n", "an empty window", "Correct it"),
        (BASE + WINDOW + "days: []}\n", "at least 1 item", "Correct it"),
        (BASE + WINDOW + "days: [someday]}\n", "not a day", "Correct it"),
        (BASE + WINDOW + "start: '25:00'}\n", "not a time of day", "Correct it"),
        (BASE + WINDOW.replace("a-spot", "x") + "}\n", "no flavor is called 'x'", "a-od, a-spot"),
        (BASE + "policy: {margin_ms: -1}\n", "field 'policy.margin_ms'", "Give 0 or more"),
        (BASE + "policy: {margn_ms: 1}\n", "unknown field", "Did you mean 'margin_ms'?"),
        (BASE + "port: 8\nport: 9\n", "line 19, field 'port': it is given twice", "Keep one"),
        (BASE + "storage: [\n", "not YAML", "Correct the syntax"),
        ("", "field 'clusters': it is missing", "Add 'clusters'."),
    ],
)
def test_a_mistake_is_answered_with_line_field_and_remedy(
    text: str, cause: str, remedy: str
) -> None:
    """Every refusal says where it is wrong, why, and what to do."""
    error = refusal(text)
    assert error.cause.startswith("f.yaml")
    assert cause in error.cause
    assert remedy in error.remedy


def test_the_nearest_time_zone_is_offered() -> None:
    """A misspelt zone names the one that was meant."""
    error = refusal(BASE + WINDOW + "time_zone: Europe/Berln}\n")
    assert "did you mean 'Europe/Berlin'?" in error.cause


def test_a_storage_folder_is_relative_to_the_file(tmp_path: Path) -> None:
    """A configuration can be moved together with its folder; a URI is left alone."""
    path = tmp_path / "lowtide.yaml"
    path.write_text(BASE + "storage: objects\n", encoding="utf-8")
    assert load_settings(path).storage == str(tmp_path / "objects")
    path.write_text(BASE + "storage: s3://bucket/x\n", encoding="utf-8")
    assert load_settings(path).storage == "s3://bucket/x"


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    """A wrong path ends in one cause and one remedy, not in a trace."""
    with pytest.raises(FileFormatError, match=r"absent\.yaml cannot be read"):
        load_settings(tmp_path / "absent.yaml")


def test_only_nodes_that_we_start_can_be_launched() -> None:
    """On a static cluster jobs wait for nodes that join; nothing is launched in vain."""
    static = parsed(BASE).flavors["a-spot"]
    local = parsed(BASE.replace("static", "local")).flavors["a-spot"]
    assert (static.launches, local.launches) == (False, True)


def test_egress_between_regions_has_a_price() -> None:
    """Nano-dollars per GB by direction; a negative price is refused by its field."""
    given = parsed(BASE + "egress_usd_per_gb:\n  east: {west: 0.02, north: 0.1}\n")
    assert given.egress_nanos_per_gb == {
        ("east", "west"): 20_000_000,
        ("east", "north"): 100_000_000,
    }
    assert "egress_usd_per_gb" in refusal(BASE + "egress_usd_per_gb: {east: {west: -1}}\n").cause
