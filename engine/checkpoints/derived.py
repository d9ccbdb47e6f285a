"""Tensors made of others: joined, cut, turned; computed when their data is asked for.

What can stay a place in its file does (whole tensors, runs of rows): executors read it from there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from fireside.engine import blocks
from fireside.engine.arrays import np
from fireside.engine.checkpoints.source import FileTensor, Source
from fireside.engine.checkpoints.types import Tensor
from fireside.engine.hints import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from numpy.typing import NDArray

Items: TypeAlias = "NDArray[Any]"  # an array of `shape`, one number a weight, as it is stored

_ITEM = {"F32": "<u4", "F16": "<u2", "BF16": "<u2"}


class DerivedTensor(Tensor):
    """A tensor whose bytes `make` computes, anew each time, of those in `sources`."""

    make: Callable[[], blocks.Bytes]
    sources: frozenset[Source]

    def __init__(
        self,
        name: str,
        shape: tuple[int, ...],
        block: str,
        make: Callable[[], blocks.Bytes],
        parts: Sequence[Tensor] = (),
    ) -> None:
        # the base is frozen, and its `data` is the property below
        fields: dict[str, Any] = {"name": name, "shape": shape, "block": block, "make": make}
        fields["sources"] = frozenset().union(*(sources(part) for part in parts))
        for key, value in fields.items():
            object.__setattr__(self, key, value)

    @property
    def data(self) -> blocks.Bytes:
        """Its bytes; CheckpointError where what it is made of cannot be read."""
        return self.make()


def sources(tensor: Tensor) -> frozenset[Source]:
    """The open files that a tensor is read from."""
    if isinstance(tensor, FileTensor):
        return frozenset([tensor.source])
    return tensor.sources if isinstance(tensor, DerivedTensor) else frozenset()


def items(tensor: Tensor) -> Items:
    """The numbers of an F32, F16 or BF16 tensor as they are stored: [*shape]."""
    return tensor.data.view(_ITEM[tensor.block]).reshape(tensor.shape)


def made(
    name: str, shape: tuple[int, ...], block: str, make: Callable[[], Items], *parts: Tensor
) -> Tensor:
    """A tensor whose stored numbers `make` computes of `parts`."""

    def data() -> blocks.Bytes:
        return np.ascontiguousarray(make()).reshape(-1).view(np.uint8)

    return DerivedTensor(name, shape, block, data, parts)


def renamed(tensor: Tensor, name: str, shape: tuple[int, ...] | None = None) -> Tensor:
    """The same weights under another name, and in another shape of as many."""
    shape = tensor.shape if shape is None else shape
    if math.prod(shape) != tensor.count:
        raise ValueError(f"{tensor.shape} is not {shape}")
    if isinstance(tensor, FileTensor):
        return FileTensor(name, shape, tensor.block, tensor.source, tensor.start)
    return DerivedTensor(name, shape, tensor.block, lambda: tensor.data, [tensor])


def rows(tensor: Tensor, name: str, first: int, count: int) -> Tensor:
    """Rows [first, first + count) of the first dimension."""
    shape = (count, *tensor.shape[1:])
    if isinstance(tensor, FileTensor):
        row = tensor.nbytes // tensor.shape[0]
        return FileTensor(name, shape, tensor.block, tensor.source, tensor.start + first * row)
    return made(name, shape, tensor.block, lambda: items(tensor)[first : first + count], tensor)


def picked(tensor: Tensor, name: str, index: NDArray[np.intp]) -> Tensor:
    """Those rows of the first dimension, in that order."""
    shape = (len(index), *tensor.shape[1:])
    return made(name, shape, tensor.block, lambda: items(tensor)[index], tensor)


def transposed(tensor: Tensor, name: str) -> Tensor:
    """A matrix with rows and columns exchanged."""
    return made(name, tensor.shape[::-1], tensor.block, lambda: items(tensor).T, tensor)


def joined(parts: Sequence[Tensor], name: str, axis: int) -> Tensor:
    """Tensors of one block format, one behind the other along `axis`."""
    shape = list(parts[0].shape)
    shape[axis] = sum(part.shape[axis] for part in parts)
    block = parts[0].block
    return made(
        name, tuple(shape), block, lambda: np.concatenate([items(p) for p in parts], axis), *parts
    )


def stacked(parts: Sequence[Tensor], name: str) -> Tensor:
    """Tensors of one shape and block format, whatever it is, as one: [len(parts), *shape]."""
    shape = (len(parts), *parts[0].shape)
    whole = lambda: np.concatenate([part.data for part in parts])  # noqa: E731
    return DerivedTensor(name, shape, parts[0].block, whole, parts)


def plus(tensor: Tensor, name: str, number: float) -> Tensor:
    """The weights + `number`, in F32."""
    return made(name, tensor.shape, "F32", lambda: tensor.to_float32() + np.float32(number), tensor)
