"""``windows apply -f FILE``: price windows and holidays as code, checked against the flavors."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cluster.flavors import Flavor
from scheduler.window_settings import Holidays, WindowSettings, problems
from scheduler.windows import PriceWindow
from scheduler.yaml_lines import parse_yaml


class WindowsIn(BaseModel):
    """The file: the same fields as in ``lowtide.yaml``, and no others."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    price_windows: tuple[WindowSettings, ...] = Field(min_length=0)
    holidays: Holidays = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a file asks for."""

    windows: tuple[PriceWindow, ...]


def parse_windows(text: str, *, source: str, flavors: Iterable[Flavor]) -> Asked:
    """Read price windows from YAML.

    Raises:
        FileFormatError: something in it is wrong; names line and field.
    """
    document = parse_yaml(text, source=source)
    try:
        given = WindowsIn.model_validate(document.data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        cause = first["msg"].removeprefix("Value error, ")
        remedy = "Give `price_windows` and, for named days, `holidays`, as in lowtide.yaml."
        raise document.error(first["loc"], cause, remedy=remedy) from error
    for found in problems(given.price_windows, flavors=flavors, holidays=given.holidays):
        at = ("price_windows", found.index, found.field)
        raise document.error(at, found.cause, remedy=found.remedy)
    listed = (window.windows(given.holidays) for window in given.price_windows)
    return Asked(tuple(window for windows in listed for window in windows))
