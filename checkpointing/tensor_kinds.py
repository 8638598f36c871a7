"""Tensors that are more than one run of bytes, taken apart into plain ones and put together again.

Quantised tensors are their integers, scales and zero points; sparse ones their indices and values;
jagged ones their values and offsets; any other wrapper is what its own `__tensor_flatten__` says.
A wrapper's class is looked up among the classes that the program has imported, never imported by
name: a manifest runs no code.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch.nested._internal.nested_tensor import NestedTensor

from checkpointing.errors import CheckpointError

_PLAIN: Final = frozenset({torch.Tensor, torch.nn.Parameter, torch.nn.Buffer})
_INTEGERS: Final[Mapping[torch.dtype, torch.dtype]] = {
    torch.qint8: torch.int8,
    torch.quint8: torch.uint8,
    torch.qint32: torch.int32,
}
_COMPRESSED: Final[Mapping[torch.layout, bool]] = {
    torch.sparse_csr: True,
    torch.sparse_bsr: True,
    torch.sparse_csc: False,
    torch.sparse_bsc: False,
}
"""Compressed layouts, and whether it is the rows that are compressed."""


@dataclass(frozen=True, slots=True)
class Composite:
    """A tensor taken apart. `settings` hold what the state format keeps: numbers, texts, dtypes."""

    kind: str
    parts: Mapping[str, torch.Tensor]
    settings: Mapping[str, object]


def is_plain(tensor: torch.Tensor) -> bool:
    """Whether `tensor` is nothing but strided bytes."""
    if type(tensor) not in _PLAIN or tensor.layout is not torch.strided:
        return False
    return not (tensor.is_quantized or tensor.is_nested or tensor.is_meta)


def refusal(tensor: torch.Tensor) -> str | None:
    """Say why `tensor` cannot be kept by its bytes, or None if it can."""
    if tensor.is_meta:
        return "a tensor on the meta device, which has no bytes"
    if type(tensor) not in _PLAIN:
        return _wrapper_refusal(tensor)
    if tensor.is_nested:
        return "a nested tensor of strided layout; make it with layout=torch.jagged"
    if tensor.is_quantized:
        return _quantized_refusal(tensor)
    if tensor.layout not in {torch.strided, torch.sparse_coo, *_COMPRESSED}:
        return f"a tensor of layout {tensor.layout}; convert it with to_dense()"
    return None


def take_apart(tensor: torch.Tensor) -> Composite:
    """Return the parts of a tensor that is neither plain nor refused; copies nothing."""
    if isinstance(tensor, NestedTensor):
        return _from_jagged(tensor)
    if type(tensor) not in _PLAIN:
        return _from_wrapper(tensor)
    if tensor.is_quantized:
        return _from_quantized(tensor.detach())
    if tensor.layout is torch.sparse_coo:
        return _from_coo(tensor.detach())
    return _from_compressed(tensor.detach())


def put_together(
    kind: str, *, parts: Mapping[str, torch.Tensor], settings: Mapping[str, Any]
) -> torch.Tensor:
    """Build the tensor that `take_apart` took apart; raises what torch raises for nonsense."""
    return _BUILDERS[kind](parts, settings)


# ---------------------------------------------------------------------- quantised


def _quantized_refusal(tensor: torch.Tensor) -> str | None:
    packed = tensor.dtype not in _INTEGERS
    if packed and not (tensor.is_contiguous() and tensor.storage_offset() == 0):
        return "a view of a tensor with several values per byte; make it contiguous"
    return None


def _from_quantized(tensor: torch.Tensor) -> Composite:
    settings: dict[str, object] = {"dtype": tensor.dtype, "shape": list(tensor.shape)}
    parts = {"integers": _integers(tensor)}
    if tensor.qscheme() is torch.per_tensor_affine:
        settings |= {"scale": tensor.q_scale(), "zero_point": tensor.q_zero_point()}
        return Composite("quantized", parts, settings)
    settings["axis"] = tensor.q_per_channel_axis()
    parts["scales"] = tensor.q_per_channel_scales()
    parts["zero_points"] = tensor.q_per_channel_zero_points()
    return Composite("quantized", parts, settings)


def _to_quantized(parts: Mapping[str, torch.Tensor], settings: Mapping[str, Any]) -> torch.Tensor:
    dtype = settings["dtype"]
    if "axis" in settings:
        found = torch._empty_per_channel_affine_quantized(  # noqa: SLF001 - no public way
            settings["shape"],
            scales=parts["scales"],
            zero_points=parts["zero_points"],
            axis=settings["axis"],
            dtype=dtype,
        )
    else:
        found = torch._empty_affine_quantized(  # noqa: SLF001
            settings["shape"],
            scale=settings["scale"],
            zero_point=settings["zero_point"],
            dtype=dtype,
        )
    _integers(found).copy_(parts["integers"])
    return found


def _integers(tensor: torch.Tensor) -> torch.Tensor:
    """Return the stored integers as a view: `int_repr` would copy them."""
    storage = tensor.untyped_storage()
    plain = torch.empty(0, dtype=_INTEGERS.get(tensor.dtype, torch.uint8), device=tensor.device)
    if tensor.dtype in _INTEGERS:
        return plain.set_(storage, tensor.storage_offset(), tensor.shape, tensor.stride())
    return plain.set_(storage, 0, (storage.nbytes(),), (1,))


# ---------------------------------------------------------------------- sparse


def _from_coo(tensor: torch.Tensor) -> Composite:
    parts = {"indices": tensor._indices(), "values": tensor._values()}  # noqa: SLF001 - as stored
    return Composite("coo", parts, {"shape": tensor.shape, "coalesced": tensor.is_coalesced()})


def _to_coo(parts: Mapping[str, torch.Tensor], settings: Mapping[str, Any]) -> torch.Tensor:
    return torch.sparse_coo_tensor(
        parts["indices"],
        parts["values"],
        settings["shape"],
        check_invariants=True,
        is_coalesced=settings["coalesced"],
    )


def _from_compressed(tensor: torch.Tensor) -> Composite:
    if _COMPRESSED[tensor.layout]:
        lines, places = tensor.crow_indices(), tensor.col_indices()
    else:
        lines, places = tensor.ccol_indices(), tensor.row_indices()
    parts = {"lines": lines, "places": places, "values": tensor.values()}
    layout = str(tensor.layout).removeprefix("torch.")
    return Composite("compressed", parts, {"shape": tensor.shape, "layout": layout})


def _to_compressed(parts: Mapping[str, torch.Tensor], settings: Mapping[str, Any]) -> torch.Tensor:
    layouts = {str(layout).removeprefix("torch."): layout for layout in _COMPRESSED}
    return torch.sparse_compressed_tensor(
        parts["lines"],
        parts["places"],
        parts["values"],
        settings["shape"],
        layout=layouts[settings["layout"]],
        check_invariants=True,
    )


# ---------------------------------------------------------------------- wrappers


def _from_jagged(tensor: Any) -> Composite:  # noqa: ANN401 - a class without types
    parts = {"values": tensor.values(), "offsets": tensor.offsets()}
    lengths = tensor.lengths()
    if lengths is not None:
        parts["lengths"] = lengths
    settings = {
        "axis": tensor._ragged_idx,  # noqa: SLF001 - no public way
        "shortest": tensor._maybe_min_seqlen,  # noqa: SLF001
        "longest": tensor._maybe_max_seqlen,  # noqa: SLF001
    }
    return Composite("jagged", parts, settings)


def _to_jagged(parts: Mapping[str, torch.Tensor], settings: Mapping[str, Any]) -> torch.Tensor:
    return torch.nested.nested_tensor_from_jagged(
        parts["values"],
        parts["offsets"],
        parts.get("lengths"),
        settings["axis"],
        settings["shortest"],
        settings["longest"],
    )


def _wrapper_refusal(tensor: torch.Tensor) -> str | None:
    kind = type(tensor)
    if not (hasattr(kind, "__tensor_flatten__") and hasattr(kind, "__tensor_unflatten__")):
        return "a tensor subclass that does not say, by __tensor_flatten__, what it consists of"
    if _imported(_name(kind)) is not kind:
        return "a tensor subclass that cannot be found again by its name"
    return None


def _from_wrapper(tensor: torch.Tensor) -> Composite:
    names, context = _flattened(tensor)
    settings = {
        "class": _name(type(tensor)),
        "context": context,
        "shape": tensor.shape,
        "stride": list(tensor.stride()),
    }
    return Composite("wrapper", {name: getattr(tensor, name) for name in names}, settings)


def _flattened(tensor: Any) -> tuple[list[str], object]:  # noqa: ANN401 - a method no type knows
    names, context = tensor.__tensor_flatten__()
    return names, context


def _to_wrapper(parts: Mapping[str, torch.Tensor], settings: Mapping[str, Any]) -> torch.Tensor:
    kind = _imported(settings["class"])
    if kind is None:
        raise _not_imported(settings["class"])
    found: torch.Tensor = kind.__tensor_unflatten__(
        dict(parts), settings["context"], settings["shape"], tuple(settings["stride"])
    )
    return found


def _name(kind: type) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"


def _imported(name: str) -> Any:  # noqa: ANN401 - a class with methods that no type knows
    module, _, path = name.partition(":")
    found: object = sys.modules.get(module)
    for part in path.split("."):
        found = getattr(found, part, None)
    if isinstance(found, type) and issubclass(found, torch.Tensor):
        return found
    return None


def _not_imported(name: str) -> CheckpointError:
    return CheckpointError(
        "state-class-unknown",
        cause=f"The checkpoint holds a tensor of class {name}, which is not imported here.",
        remedy=f"Import {name.partition(':')[0]} before the checkpoint is loaded.",
    )


_Builder = Callable[[Mapping[str, torch.Tensor], Mapping[str, Any]], torch.Tensor]
_BUILDERS: Final[Mapping[str, _Builder]] = {
    "quantized": _to_quantized,
    "coo": _to_coo,
    "compressed": _to_compressed,
    "jagged": _to_jagged,
    "wrapper": _to_wrapper,
}
