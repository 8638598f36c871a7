"""Help as plain text in sections.

Typer's framed help would load all of Rich, which takes longer than everything else that
``lowtide --help`` does.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from typer.core import TyperCommand, TyperGroup

Rows = list[tuple[str, str]]
OPTIONS, ARGUMENTS = "Options", "Arguments"
MIN_WIDTH = 62  # what an 80-column terminal leaves for a command's sentence


class SectionedCommand(TyperCommand):
    """A command whose options stand under the headings of their ``rich_help_panel``."""

    def format_options(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401 - Typer's own
        """Write the sections: arguments, the plain options, then each panel."""
        sections: dict[str, Rows] = {ARGUMENTS: [], OPTIONS: []}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is None:
                continue
            if param.param_type_name == "argument":
                sections[ARGUMENTS].append((record[0].partition(" <")[0], record[1]))
            else:
                heading = getattr(param, "rich_help_panel", None) or OPTIONS
                sections.setdefault(heading, []).append(record)
        _write(formatter, sections.items())


class SectionedGroup(TyperGroup):
    """A group whose commands stand under the headings of their ``rich_help_panel``."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401 - Typer's own
        """Write a section for each panel, in the order of the commands."""
        sections: dict[str, Rows] = {}
        width = formatter.width - 6 - max(len(name) for name in self.commands)
        for name in self.list_commands(ctx):
            command = self.commands[name]
            heading = getattr(command, "rich_help_panel", None) or "Commands"
            row = (name, command.get_short_help_str(max(width, MIN_WIDTH)))
            sections.setdefault(heading, []).append(row)
        _write(formatter, sections.items())


def _write(formatter: Any, sections: Iterable[tuple[str, Rows]]) -> None:  # noqa: ANN401
    for heading, rows in sections:
        if rows:
            with formatter.section(heading):
                formatter.write_dl(rows)
