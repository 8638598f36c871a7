"""Where a checkpoint comes from: code, data position, parent, environment.

A plain map of texts in the manifest, covered by its hash and so by the commit's signature:

    code       `LOWTIDE_CODE_HASH` as given, else `blake3:` and the hash of the script
    script     the script's file name
    data       where the loader stands: `epoch=3 batch=17 ...`
    parent     key of the manifest that the session was restored from
    python, torch, numpy, lowtide, platform, world_size

No secrets and no host names: a checkpoint travels further than the machine that made it. Nothing of
this is in a chunk, so equal states have equal chunks whoever saved them. Needs no torch.
"""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from checkpointing.environment import read_code_hash
from checkpointing.hashing import blake3_hex

_PACKAGES: Final = ("torch", "numpy", "lowtide")
_POSITION: Final = ("own", "loader")
_MOST_FIELDS: Final = 12  # a loader's position is short; what is longer is not a position
_MOST_DIGITS: Final = 80


def collect(*, world_size: int, script: Path | None = None) -> dict[str, str]:
    """Return what is true for a whole session; `script` defaults to the one that runs."""
    found = _main_script() if script is None else script
    texts = {
        "code": read_code_hash() or _hash_of(found),
        "script": found.name if found is not None else "",
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "world_size": str(world_size),
        **{name: _version(name) for name in _PACKAGES},
    }
    return {name: value for name, value in texts.items() if value}


def position(tree: object) -> dict[str, str]:
    """Return the loader's position in a state's tree (see `state_tree`), if it has one.

    The short form: its whole numbers and texts, not its tensors.
    """
    found: object = tree
    for name in _POSITION:
        found = dict(_items(found)).get(name)
    fields = [f"{name}={value}" for name, value in _items(found) if _is_short(value)]
    return {"data": " ".join(fields[:_MOST_FIELDS])} if fields else {}


def _items(value: object) -> Iterator[tuple[str, object]]:
    """Yield the items of a tagged dict whose keys are texts."""
    pairs: Any = value.get("dict", ()) if isinstance(value, Mapping) else ()
    return ((key, item) for key, item in pairs if isinstance(key, str))


def _is_short(value: object) -> bool:
    return isinstance(value, int | str) and len(str(value)) <= _MOST_DIGITS


def _main_script() -> Path | None:
    path = getattr(sys.modules.get("__main__"), "__file__", None)
    return Path(path) if path else None


def _hash_of(script: Path | None) -> str:
    try:
        return "" if script is None else f"blake3:{blake3_hex(script.read_bytes())}"
    except OSError:  # it was moved, or is inside an archive: then nobody can say
        return ""


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""
