"""Hugging Face's folders: config.json, weights in safetensors or torch files, a tokenizer.

The architectures say what a config.json means and what their weights are called there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from fireside.engine.checkpoints import Format, register, safetensors, torch_zip
from fireside.engine.checkpoints.derived import renamed, stacked
from fireside.engine.checkpoints.json_files import read_object
from fireside.engine.checkpoints.pickles import TensorRef, shown
from fireside.engine.checkpoints.types import Checkpoint, Tensor, Vocabulary
from fireside.engine.config import ModelConfig
from fireside.engine.errors import CheckpointError, UnsupportedError

if TYPE_CHECKING:
    from fireside.engine.architectures.hf import HfConfig, Transform

CONFIG = "config.json"
# Files of weights in a folder, the best first; an index names several files
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
INDEXES = tuple(f"{name}.index.json" for name in WEIGHTS)
MAX_SHARDS = 1 << 12
TOKENIZERS = ("tokenizer.json", "tokenizer.model")
GENERATION = "generation_config.json"

Lazy = dict[str, Callable[[], Tensor]]


def is_weights(path: Path) -> bool:
    """Whether it is called as Hugging Face's files of torch are."""
    return path.name.startswith("pytorch_model")


def recognises(path: Path, head: bytes) -> bool:
    """Whether it is a folder with config.json and weights, or one of those files."""
    if head:
        own = path.name in (CONFIG, *INDEXES) or safetensors.recognises(head)
        return own and (path.name == CONFIG or (path.parent / CONFIG).is_file())
    return (path / CONFIG).is_file() and any((path / n).is_file() for n in (*WEIGHTS, *INDEXES))


def read(path: Path) -> Checkpoint:
    """Open a folder, or the one that a file of weights lies in."""
    # not at import: the architectures themselves use the types of this package
    from fireside.engine import architectures
    from fireside.engine.architectures.hf import HfConfig

    folder = path if path.is_dir() else path.parent
    config_path = folder / CONFIG
    c = HfConfig(config_path, read_object(config_path))
    kind = c.string("model_type", "")
    model = architectures.of_hugging_face(kind)
    if model is None:
        raise UnsupportedError(
            f"{config_path}: model_type {shown(kind)!r}",
            f"this version runs {', '.join(architectures.hugging_face_types())}",
        )
    if "quantization_config" in c.metadata:
        raise UnsupportedError(
            f"{config_path}: the weights are quantised in a way of their own",
            "give the model as it was before that",
        )
    config = model.read(c)
    files = weight_files(folder, path)
    found = read_weights(folder, files)
    lazy = {plain: make for name, make in found.items() if (plain := model.plain(name))}
    head = model.names["output.weight"]
    tied = c.boolean("tie_word_embeddings", head not in lazy)
    if tied:
        lazy.pop(head, None)
    elif head not in lazy:
        raise CheckpointError(f"{folder}: tensor {head} is missing")
    collector = Collector(folder, config, lazy)
    tensors = collector.all(model.names, model.transforms)
    if rest := lazy.keys() - collector.used:
        raise UnsupportedError(
            f"{folder}: tensor {shown(min(rest))} is no part of {kind}",
            "this version cannot run this variant of the model",
        )
    suffix = files[0].suffix.removeprefix(".")
    many = f", {len(files)} files" if len(files) > 1 else ""
    return Checkpoint(
        folder if path.is_dir() or path.name in (CONFIG, *INDEXES) or len(files) > 1 else path,
        f"Hugging Face ({'safetensors' if suffix == 'safetensors' else 'PyTorch'}{many})",
        folder.resolve().name,
        config,
        tensors,
        read_tokenizer(folder, config.vocab_size),
        metadata_of(folder, c),
    )


# -- files


def weight_files(folder: Path, path: Path) -> list[Path]:
    """The files with the weights: `path` itself, or those of the folder."""
    for name, index in zip(WEIGHTS, INDEXES, strict=True):
        if (folder / index).is_file():
            files = indexed(folder / index)
            if path.is_dir() or path in files or path.name in (CONFIG, index):
                return files
        elif (folder / name).is_file() and (path.is_dir() or path.name == CONFIG):
            return [folder / name]
    return [path]


def indexed(index: Path) -> list[Path]:
    """The files that an index names; CheckpointError where they are not beside it."""
    table = read_object(index).get("weight_map")
    if not isinstance(table, dict) or not table:
        raise CheckpointError(f"{index}: weight_map is missing or no object")
    names = {name if isinstance(name, str) else "" for name in table.values()}
    if len(names) > MAX_SHARDS:
        raise CheckpointError(f"{index}: {len(names):,} files")
    for name in sorted(names):
        if not name or Path(name).name != name or "\\" in name or "\0" in name:
            raise CheckpointError(f"{index}: a file called {shown(name)!r}", "the file is damaged")
        if not (index.parent / name).is_file():
            raise CheckpointError(f"{index.parent}: {shown(name)} is missing", "download it again")
    return [index.parent / name for name in sorted(names)]


def read_weights(folder: Path, files: list[Path]) -> Lazy:
    """Every tensor of the files, not opened yet, by its name."""
    result: Lazy = {}
    for file in files:
        found = read_file_of_weights(file)
        if twice := result.keys() & found.keys():
            raise CheckpointError(f"{folder}: tensor {shown(min(twice))} is in two files")
        result.update(found)
    return result


def read_file_of_weights(file: Path) -> Lazy:
    """The tensors of one file."""
    if file.suffix == ".safetensors":
        return dict(safetensors.read(file))
    saved = torch_zip.read(file)
    return {
        str(name): partial(saved.tensor, str(name), ref)
        for name, ref in saved.value.items()
        if isinstance(ref, TensorRef)
    }


def read_tokenizer(folder: Path, vocab_size: int) -> Vocabulary | None:
    """The folder's tokenizer; None where there is none, or none that this version can do.

    What is wrong with it is said where a text is to be written (model.find_vocabulary), since
    another one can be named there.
    """
    from fireside.engine.tokenizers import read_tokenizer_folder  # it uses this package's types

    if not any((folder / name).is_file() for name in TOKENIZERS):
        return None
    try:
        return read_tokenizer_folder(folder, vocab_size)
    except UnsupportedError:
        return None


def metadata_of(folder: Path, c: HfConfig) -> dict[str, object]:
    """What config.json and generation_config.json say in plain values, for people."""
    plain = (str, int, float, bool)
    metadata: dict[str, object] = {
        f"config.{k}": v for k, v in c.metadata.items() if isinstance(v, plain)
    }
    if (folder / GENERATION).is_file():
        generation = read_object(folder / GENERATION)
        metadata |= {f"generation.{k}": v for k, v in generation.items() if isinstance(v, plain)}
    return metadata


# -- names


class Collector:
    """Finds the weights of an architecture among those of the files; `used` are those found."""

    def __init__(self, folder: Path, config: ModelConfig, lazy: Lazy) -> None:
        self.folder = folder
        self.config = config
        self.lazy = lazy
        self.used: set[str] = set()
        self.opened: dict[str, Tensor] = {}

    def all(
        self, names: Mapping[str, str], transforms: Mapping[str, Transform]
    ) -> dict[str, Tensor]:
        """Every weight that the architecture needs and the files have, by GGUF's name."""
        from fireside.engine import architectures

        tensors: dict[str, Tensor] = {}
        for gguf in architectures.get(self.config.architecture).shapes(self.config):
            layer, key = split(gguf)
            pattern = names.get(key)
            if pattern is None:
                raise UnsupportedError(f"{self.folder}: {gguf} has no name in files of this kind")
            tensor = self.find(gguf, pattern.replace("{}", layer))
            if tensor is None:
                continue
            if (transform := transforms.get(key)) is not None:
                try:
                    tensor = transform(tensor, gguf, self.config)
                except ValueError as error:
                    raise CheckpointError(f"{self.folder}: tensor {gguf}: {error}") from None
            tensors[gguf] = tensor
        return tensors

    def find(self, gguf: str, name: str) -> Tensor | None:
        """A weight under its new name; None where the files do not have it."""
        if "*" in name:
            count = self.config.n_experts
            if gguf.endswith("_norm.weight"):  # one a head
                count = self.config.n_kv_heads if "attn_k" in gguf else self.config.n_heads
            parts = [self.open(name.replace("*", str(i))) for i in range(count)]
            there = [part for part in parts if part is not None]
            if len(there) < len(parts) or len({(p.shape, p.block) for p in there}) != 1:
                raise CheckpointError(f"{self.folder}: {name} is not of one kind for all of them")
            return stacked(there, gguf)
        tensor = self.open(name)
        return renamed(tensor, gguf) if tensor is not None else None

    def open(self, name: str) -> Tensor | None:
        """A tensor of the files."""
        if name not in self.lazy:
            return None
        self.used.add(name)
        return self.lazy[name]()


def split(gguf: str) -> tuple[str, str]:
    """The number of the layer ("" where there is none) and the name with {} for it."""
    if not gguf.startswith("blk."):
        return "", gguf
    _, layer, rest = gguf.split(".", 2)
    return layer, f"blk.{{}}.{rest}"


register(Format("Hugging Face's folder (config.json, safetensors or .bin)", recognises, read))
