"""Architectures: each is one file that turns a ModelConfig into a Plan. One registry."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping

from fireside.engine.errors import CheckpointError, UnsupportedError
from fireside.engine.hints import TYPE_CHECKING
from fireside.engine.records import record

if TYPE_CHECKING:
    from fireside.engine.architectures.hf import HfModel
    from fireside.engine.checkpoints.gguf_fields import Fields
    from fireside.engine.checkpoints.types import Tensor
    from fireside.engine.config import ModelConfig
    from fireside.engine.plan import Plan

# Every architecture there is; the file that bears its name is imported when it is asked for.
NAMES = (
    "gemma", "gemma2", "gemma3", "gpt2", "gptneox", "llama", "olmo2", "phi3", "qwen2", "qwen3",
    "qwen3moe", "smollm3", "stablelm",
)  # fmt: skip


@record
class Architecture:
    """An entry: the weights a model of this kind needs, and the plan of its forward pass."""

    name: str
    shapes: Callable[[ModelConfig], Mapping[str, tuple[int, ...]]]
    plan: Callable[[ModelConfig, bool], Plan]  # (config, tied)
    read_gguf: Callable[[Fields, Mapping[str, Tensor]], ModelConfig]
    hf: tuple[HfModel, ...] = ()  # Hugging Face's folders


_REGISTRY: dict[str, Architecture] = {}


def register(architecture: Architecture) -> Architecture:
    """Add an entry; a second one of the same name is a programming error."""
    if architecture.name in _REGISTRY:
        raise RuntimeError(f"architecture {architecture.name!r} is registered twice")
    _REGISTRY[architecture.name] = architecture
    return architecture


def get(name: str) -> Architecture:
    """The architecture called `name`; UnsupportedError lists the known ones."""
    if name not in _REGISTRY:
        if name not in NAMES:
            raise UnsupportedError(
                f"unknown architecture {name!r}", f"this version runs {', '.join(names())}"
            )
        importlib.import_module(f"{__name__}.{name}")
    return _REGISTRY[name]


def names() -> tuple[str, ...]:
    """Names of all architectures."""
    return tuple(sorted({*NAMES, *_REGISTRY}))


def of_hugging_face(model_type: str) -> HfModel | None:
    """How folders of that `model_type` are read; None where no architecture knows it."""
    for architecture in map(get, names()):
        for model in architecture.hf:
            if model_type in model.types:
                return model
    return None


def hugging_face_types() -> tuple[str, ...]:
    """Every `model_type` that is known."""
    return tuple(sorted(t for name in names() for m in get(name).hf for t in m.types))


def check_tensors(config: ModelConfig, tensors: Mapping[str, Tensor], where: str) -> None:
    """CheckpointError unless every weight the architecture needs is there in its shape.

    `output.weight` may be missing: then the embedding is the classifier too.
    """
    for name, shape in get(config.architecture).shapes(config).items():
        tensor = tensors.get(name)
        if tensor is None:
            if name != "output.weight":
                raise CheckpointError(f"{where}: tensor {name} is missing")
        elif tensor.shape != shape:
            raise CheckpointError(
                f"{where}: tensor {name} has shape {list(tensor.shape)}, expected {list(shape)}"
            )
