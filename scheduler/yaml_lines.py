"""YAML whose every value knows its line, so that a user's error can point at it.

Two habits of YAML 1.1 are left out, because they change what people write in silence: ``22:00``
is text here and not the number 1320, and a key given twice is an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from jobs.errors import FileFormatError

Loc = tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class Document:
    """Parsed data, and where each part of it stands."""

    data: Any
    source: str
    root: yaml.Node | None

    def line(self, loc: Loc) -> int:
        """Give the line (from 1) of the deepest part of ``loc`` that exists."""
        line, node = 1, self.root
        for part in loc:
            found = _child(node, part)
            if found is None:
                break
            line, node = found
        return line

    def error(self, loc: Loc, cause: str, *, remedy: str) -> FileFormatError:
        """Build the error about the field at ``loc``."""
        field = ".".join(str(part) for part in loc) or "the file"
        where = f"{self.source}, line {self.line(loc)}"
        return FileFormatError(f"{where}, field '{field}': {cause}.", remedy=remedy)


def parse_yaml(text: str, *, source: str) -> Document:
    """Parse one YAML document.

    Raises:
        FileFormatError: it is not YAML, or a key is given twice; names the line.
    """
    try:
        loader = _Loader(text)
    except yaml.YAMLError as error:  # a character that YAML does not allow
        raise _syntax_error(error, source=source) from error
    try:
        root = loader.get_single_node()
        document = Document(None, source, root)
        for node, loc in _mappings(root, ()):
            _check_keys(node, loc=loc, document=document)
        data = loader.construct_document(root) if root is not None else {}
    except yaml.YAMLError as error:
        raise _syntax_error(error, source=source) from error
    except RecursionError as error:
        cause = f"{source}: nested too deep to be read."
        raise FileFormatError(cause, remedy="Write it simpler.") from error
    finally:
        loader.dispose()
    return Document(data, source, root)


class _Loader(yaml.SafeLoader):
    """Safe YAML without base-60 numbers."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:  # noqa: ANN401, FBT001, FBT002
        """Say where a value stands that only looks like a date or a number."""
        try:
            return super().construct_object(node, deep=deep)
        except (ValueError, OverflowError) as error:
            raise yaml.constructor.ConstructorError(
                problem=str(error), problem_mark=node.start_mark
            ) from error


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in pairs if not tag.endswith((":int", ":float"))]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:\d[\d_]*\.[\d_]*|\.\d[\d_]*|\d+(?:\.\d*)?[eE][-+]?\d+)$"),
    list("-+.0123456789"),
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"^[-+]?(?:0|[1-9][\d_]*)$"), list("-+0123456789")
)


def _child(node: yaml.Node | None, part: int | str) -> tuple[int, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == str(part):
                return key.start_mark.line + 1, value
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        value = node.value[part]
        return value.start_mark.line + 1, value
    return None


def _mappings(node: yaml.Node | None, loc: Loc) -> Iterator[tuple[yaml.MappingNode, Loc]]:
    if isinstance(node, yaml.MappingNode):
        yield node, loc
        for key, value in node.value:
            yield from _mappings(value, (*loc, str(key.value)))
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield from _mappings(value, (*loc, index))


def _check_keys(node: yaml.MappingNode, *, loc: Loc, document: Document) -> None:
    seen: set[str] = set()
    for key, _ in node.value:
        name = str(key.value)
        if name in seen:
            where = f"{document.source}, line {key.start_mark.line + 1}"
            field = ".".join(str(part) for part in (*loc, name))
            raise FileFormatError(
                f"{where}, field '{field}': it is given twice.", remedy="Keep one of them."
            )
        seen.add(name)


def _syntax_error(error: yaml.YAMLError, *, source: str) -> FileFormatError:
    mark = getattr(error, "problem_mark", None)
    where = f"{source}, line {mark.line + 1}" if mark is not None else source
    problem = getattr(error, "problem", None) or str(error)
    return FileFormatError(f"{where}: not YAML: {problem}.", remedy="Correct the syntax there.")
