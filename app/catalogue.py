"""Which models there are: the embedded storyteller, and the files in the folders of models.

A file is known by what it holds, through `engine.open_checkpoint`, which reads headers only. What
cannot run is listed with the reason. The engine is imported when a file is opened, not before:
completion of model names stays quick.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from fireside import assets
from fireside.app.paths import Paths
from fireside.app.settings import EMBEDDED, Settings
from fireside.engine.hints import TYPE_CHECKING, Literal
from fireside.engine.records import record

if TYPE_CHECKING:
    from fireside.engine.checkpoints.types import Checkpoint

Source = Literal["embedded", "local"]
# of a GGUF model in several files: it is opened by the first
LATER_PART = r"-(?!00001)\d{5}-of-\d{5}\.gguf$"
MODEL_SUFFIXES = {".gguf", ".bin", ".safetensors", ".pt", ".pth", ".ckpt"}
# What makes a folder one model: a configuration, and weights of any of these names
CONFIGURATIONS = {"config.json": ("model", "pytorch_model"), "params.json": ("consolidated.00",)}
FOLDER_SUFFIXES = {".safetensors", ".bin", ".pth"}
DEPTH = 3  # folders below a models folder


@record
class ModelEntry:
    """One model. Where `problem` is not empty it cannot run, and the numbers may be 0."""

    name: str  # what --model takes
    path: Path
    source: Source
    title: str = ""  # what the file calls itself
    format: str = ""  # "GGUF v3", "llama2.c v1", ...
    architecture: str = ""
    parameters: int = 0
    blocks: Mapping[str, int] = {}  # block format -> weights stored so
    file_bytes: int = 0
    memory: Mapping[str, int] = {}  # quant -> bytes of the weights
    context: int = 0
    problem: str = ""


@record
class ModelFile:
    """A file that may be a model, not opened yet."""

    name: str
    path: Path
    source: Source


def find_models(settings: Settings, paths: Paths | None = None) -> list[ModelEntry]:
    """Every model there is, the embedded one first."""
    return list(iter_models(settings, paths))


def iter_models(settings: Settings, paths: Paths | None = None) -> Iterator[ModelEntry]:
    """The same, one at a time: opening a file with a large vocabulary may take a moment."""
    for file in model_files(settings, paths):
        entry = describe(file)
        if entry is not None:
            yield entry


def folders(settings: Settings, paths: Paths | None = None) -> list[Path]:
    """The folders that are looked through: --models-dir, then the user's own."""
    paths = paths or Paths.find()
    given = [Path(settings.models_dir).expanduser()] if settings.models_dir else []
    return [*given, paths.models_dir]


def model_files(settings: Settings, paths: Paths | None = None) -> list[ModelFile]:
    """Files that may be models, by their names alone; nothing is opened."""
    found: dict[Path, Path] = {}  # what it really is -> how it was found
    for folder in folders(settings, paths):
        for path in _walk(folder):
            found.setdefault(path.resolve(), path)
    files = sorted(found.values(), key=lambda p: (p.name.lower(), str(p)))
    stems = Counter(_stem(path) for path in files)
    stems[EMBEDDED] += 1
    names = Counter(path.name for path in files)
    result = [ModelFile(EMBEDDED, assets.storyteller(), "embedded")]
    for path in files:
        name = _stem(path) if stems[_stem(path)] == 1 else path.name
        if name == path.name and names[path.name] > 1:
            name = str(path)
        result.append(ModelFile(name, path, "local"))
    return result


def _stem(path: Path) -> str:
    """What to call a model; dots in the name of a folder are no suffix."""
    return path.name if path.is_dir() else path.stem


def _walk(folder: Path) -> Iterator[Path]:
    """Files with the suffix of a model, at most DEPTH folders down; hidden ones left out.

    A folder that is a model (of Hugging Face's or Meta's) is found instead of the files in it.
    """
    for root, below, files in os.walk(folder):
        depth = len(Path(root).relative_to(folder).parts)
        below[:] = sorted(d for d in below if not d.startswith(".") and depth < DEPTH)
        if is_model_folder(files):
            below.clear()
            yield Path(root)
            continue
        for name in below:  # os.walk does not go where links lead
            linked = Path(root, name)
            if linked.is_symlink() and is_model_folder(_names(linked)):
                yield linked
        for name in sorted(files):
            path = Path(root, name)
            if (
                path.suffix.lower() in MODEL_SUFFIXES
                and not name.startswith(".")
                and not re.search(LATER_PART, name)
                and path.is_file()
            ):
                yield path


def _names(folder: Path) -> list[str]:
    """Names of what is in a folder; none where it cannot be read."""
    try:
        return [path.name for path in folder.iterdir()]
    except OSError:
        return []


def is_model_folder(files: Iterable[str]) -> bool:
    """Whether a folder with files of these names is a model by itself."""
    names = set(files)
    weights = [name for name in names if Path(name).suffix in FOLDER_SUFFIXES]
    return any(
        configuration in names and any(name.startswith(stems) for name in weights)
        for configuration, stems in CONFIGURATIONS.items()
    )


def on_disk(path: Path) -> int:
    """Bytes of a file, or of the files in a folder."""
    if path.is_dir():
        return sum(file.stat().st_size for file in path.iterdir() if file.is_file())
    return path.stat().st_size


def describe(file: ModelFile) -> ModelEntry | None:
    """What is in `file`; None where it is no model at all, but a tokenizer that lies beside one."""
    from fireside.engine import FiresideError, open_checkpoint
    from fireside.engine.model import find_vocabulary, weights_nbytes

    try:
        checkpoint = open_checkpoint(file.path)
    except FiresideError as error:
        if file.source == "embedded" and not file.path.exists():
            return _broken(file, "it is missing from this installation")
        if file.path.suffix == ".bin" and _is_tokenizer(file.path):
            return None
        # the path stands beside it already
        return _broken(file, error.message.removeprefix(f"{file.path}: "))
    problem = ""
    memory: Mapping[str, int] = {}
    try:
        memory = weights_nbytes(checkpoint)
        find_vocabulary(checkpoint, None)
    except FiresideError as error:
        problem = error.message.removeprefix(f"{file.path}: ").removeprefix(f"{file.path} ")
    return ModelEntry(
        name=file.name,
        path=file.path,
        source=file.source,
        title=checkpoint.name,
        format=checkpoint.format,
        architecture=checkpoint.config.architecture,
        parameters=checkpoint.parameters,
        blocks=block_counts(checkpoint),
        file_bytes=on_disk(file.path),
        memory=memory,
        context=checkpoint.config.context_length,
        problem=problem,
    )


def _broken(file: ModelFile, problem: str) -> ModelEntry:
    size = on_disk(file.path) if file.path.exists() else 0
    return ModelEntry(file.name, file.path, file.source, file_bytes=size, problem=problem)


def _is_tokenizer(path: Path) -> bool:
    from fireside.engine import FiresideError
    from fireside.engine.tokenizers import read_vocabulary

    try:
        return len(read_vocabulary(path)) > 0
    except FiresideError:
        return path.name.startswith("tokenizer")


def block_counts(checkpoint: Checkpoint) -> dict[str, int]:
    """How many weights each block format stores, the most common first."""
    counts: Counter[str] = Counter()
    for tensor in checkpoint.tensors.values():
        counts[tensor.block] += tensor.count
    return dict(counts.most_common())


def chosen(settings: Settings, paths: Paths | None = None) -> Path:
    """The file of the model that is set; where it is missing, CheckpointError says who set it."""
    from fireside.engine import CheckpointError

    origin = settings.origins.get("model", "")
    try:
        path = resolve(settings.model, settings, paths)
        if not path.exists():
            raise CheckpointError(f"{path}: no such file")
    except CheckpointError as error:
        if not origin or settings.model == EMBEDDED:
            raise
        raise CheckpointError(
            f"{error.message}; the model was set by {origin}",
            "; ".join(filter(None, [error.hint, _remedy(origin)])),
        ) from None
    return path


def _remedy(origin: str) -> str:
    """What to do about a model that was set wrongly there."""
    if origin.startswith("--"):
        return "name another, or leave the flag out for the storyteller"
    what = f"unset {origin}" if origin.startswith("FIRESIDE_") else "take its line out of that file"
    return f"give another with --model, or {what} for the storyteller"


def resolve(model: str | Path, settings: Settings, paths: Paths | None = None) -> Path:
    """The file of a model given as a path or by a name; CheckpointError names close ones."""
    from fireside.engine import CheckpointError

    text = str(model)
    if text == EMBEDDED:
        path = assets.storyteller()
        if not path.is_file():
            raise CheckpointError(
                "the embedded storyteller is missing from this installation",
                "install Fireside again, or name a model file with --model",
            )
        return path
    path = Path(text).expanduser()
    if path.is_file():
        return path
    files = model_files(settings, paths)
    named = [f for f in files if f.name == text] or [f for f in files if f.path.name == text]
    if named:
        return named[0].path
    if path.exists() or os.sep in text:
        return path  # opening it says what is wrong with it
    known = [file.name for file in files]
    import difflib

    close = difflib.get_close_matches(text, known, n=3) or known[:5]
    raise CheckpointError(
        f"no model called {text!r}, and no file either",
        f"there is {', '.join(close)}; `fireside models` lists all",
    )
