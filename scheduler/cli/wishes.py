"""From the options of ``submit`` and a YAML file to one or several specifications."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from jobs.errors import FileFormatError, SpecError
from jobs.spec import JobSpec, spec_error
from scheduler.yaml_lines import Document, parse_yaml

FIELD_OF = {
    "market": "markets",
    "accelerator": "accelerators",
    "region": "regions",
    "budget": "budget_usd",
    "tag": "tags",
}
"""Options that are not called like their field."""
PAIRS = ("tag", "env")


def spec_from(options: Mapping[str, Any], *, file: Path | None) -> JobSpec:
    """Build the specification; an option wins over the file's field of the same name.

    Args:
        options: values by option name, None (or empty) where the user gave none.
        file: a YAML file, or None.

    Raises:
        FileFormatError: the file is wrong; the cause names its line and field.
        SpecError: an option is wrong.
    """
    specs = specs_from(options, file=file)
    if len(specs) != 1:
        raise FileFormatError(
            f"{file} holds {len(specs)} jobs where one is wanted.", remedy="Keep one of them."
        )
    return specs[0]


def specs_from(options: Mapping[str, Any], *, file: Path | None) -> list[JobSpec]:
    """Build all specifications of a submit: one, or one for each item of a file's list.

    Args:
        options: as ``spec_from``; they win in every job of the file.
        file: a YAML file of one job, or of a list of jobs, or None.

    Raises:
        FileFormatError: the file is wrong; the cause names its line and field.
        SpecError: an option is wrong.
    """
    document = read_file(file) if file else Document({}, "", None)
    given = fields_of(options)
    if isinstance(document.data, dict):
        return [_spec(document, (), given, file=file)]
    return [_spec(document, (index,), given, file=file) for index in range(len(document.data))]


def _spec(
    document: Document, at: tuple[int, ...], given: Mapping[str, Any], *, file: Path | None
) -> JobSpec:
    """Build one specification; ``at`` is where it stands in the file."""
    fields = document.data[at[0]] if at else document.data
    try:
        return JobSpec.model_validate({**at_home(fields, file=file), **given})
    except ValidationError as error:
        problem = spec_error(error)
        loc = error.errors(include_url=False)[0]["loc"]
        if loc and loc[0] in fields and loc[0] not in given:
            where = f"{document.source}, line {document.line((*at, *loc))}"
            raise FileFormatError(f"{where}: {problem.cause}", remedy=problem.remedy) from error
        raise _in_options(problem, field=loc) from error


def _in_options(problem: SpecError, *, field: tuple[int | str, ...]) -> SpecError:
    """Call a field by the option that the user typed."""
    if not field:
        return problem
    option = next((o for o, name in FIELD_OF.items() if name == field[0]), str(field[0]))
    typed = f"--{option.replace('_', '-')}"
    name = ".".join(str(part) for part in field)
    cause = problem.cause.replace(f"Field '{name}'", typed)
    return SpecError(cause, remedy=problem.remedy.replace(f"'{name}'", typed))


def fields_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """Turn options into fields of the specification, leaving out what was not given.

    Raises:
        SpecError: a pair is not written ``key=value``.
    """
    fields: dict[str, Any] = {}
    for option, value in options.items():
        if value is None or value == []:
            continue
        name = FIELD_OF.get(option, option)
        fields[name] = pairs(value, option=option) if option in PAIRS else value
    return fields


def pairs(texts: Sequence[str], *, option: str) -> dict[str, str]:
    """Read ``key=value`` texts.

    Raises:
        SpecError: one of them has no ``=`` or no key, or a key comes twice.
    """
    found: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise SpecError(
                f"--{option} '{text}' is not of the form KEY=VALUE.",
                remedy=f"Write it like --{option} {'model=resnet' if option == 'tag' else 'LR=1'}.",
            )
        if key in found:
            raise SpecError(f"--{option} {key} is given twice.", remedy="Keep one of them.")
        found[key] = value
    return found


def read_file(file: Path) -> Document:
    """Read a specification from YAML.

    Raises:
        FileFormatError: it cannot be read or is not a mapping of fields.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise FileFormatError(
            f"The file '{file}' cannot be read: {reason}.", remedy="Name a YAML file with --from."
        ) from error
    document = parse_yaml(text, source=str(file))
    if isinstance(document.data, list) and document.data:
        wrong = [at for at, one in enumerate(document.data) if not isinstance(one, dict)]
        if not wrong:
            return document
        where = f"{file}, line {document.line((wrong[0],))}"
    elif isinstance(document.data, dict):
        return document
    else:
        where = f"{file}, line 1"
    raise FileFormatError(
        f"{where}: a specification is a mapping of fields.",
        remedy="Write one field on each line, for example `script: train.py`.",
    )


def at_home(data: Mapping[str, Any], *, file: Path | None) -> dict[str, Any]:
    """A script named in a file is looked for beside that file."""
    fields = dict(data)
    script = fields.get("script")
    if file and isinstance(script, str) and not fields.get("code"):
        fields["script"] = str(file.parent / script)
    return fields
