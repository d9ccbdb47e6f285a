"""The Hugging Face hub: which files a repository has, and getting them, through huggingface_hub.

That package is an optional one and imported late. What goes wrong on the way is told as HubError.
Downloads go to a hidden `.NAME.part` beside their destination, from which a later call goes on; the
file gets its name when its checksum is right.
"""

from __future__ import annotations

import errno
import hashlib
import importlib
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from fireside.engine import FiresideError
from fireside.engine.checkpoints.atomic import is_ours

INSTALL = "pip install 'fireside[hub]', or pip install huggingface_hub"
REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
PART = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf", re.DOTALL)  # of a model in several files
# What a folder of safetensors needs beside the weights
BESIDE = frozenset(
    ("config.json", "generation_config.json", "tokenizer.json", "tokenizer.model",
     "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja",
     "added_tokens.json", "vocab.json", "merges.txt", "model.safetensors.index.json")
)  # fmt: skip
# Types in the order in which one is chosen where nobody is asked
PREFERRED = ("Q4_K_M", "Q8_0", "Q5_K_M", "Q6_K", "Q4_K_S", "Q4_0", "Q5_K_S", "F16", "BF16", "F32")


class HubError(FiresideError):
    """The hub, or the way to it, does not give what was asked for."""


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository."""

    name: str  # with the folders it is in
    size: int
    sha256: str  # "" where the hub tells none, as for small files


@dataclass(frozen=True)
class Repository:
    """A repository at one commit."""

    name: str
    commit: str
    files: tuple[RemoteFile, ...]


@dataclass(frozen=True)
class Choice:
    """A model in a repository: one GGUF file, several, or a folder of safetensors."""

    label: str
    files: tuple[RemoteFile, ...]
    folder: str = ""  # the name of the folder they go into; "" for a single file

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


def parse(text: str) -> tuple[str, str]:
    """(OWNER/NAME, FILE or "") of OWNER/NAME[:FILE], or of the address of its page."""
    text = re.sub(r"^(https?://)?(www\.)?(huggingface\.co|hf\.co)/", "", text).rstrip("/")
    repository, _, file = text.partition(":")
    if not REPOSITORY.fullmatch(repository) or ".." in repository:
        raise HubError(f"{text!r} is no OWNER/NAME[:FILE]", "for instance ggml-org/models")
    return repository, file


def look_up(name: str, revision: str | None = None) -> Repository:
    """What a repository holds."""
    hub = package()
    with plain_errors(name, revision):
        info = hub.HfApi(endpoint()).model_info(name, revision=revision, files_metadata=True)
        files = []
        for sibling in info.siblings or ():
            lfs = sibling.lfs
            sha256 = lfs.get("sha256", "") if isinstance(lfs, dict) else getattr(lfs, "sha256", "")
            files.append(RemoteFile(sibling.rfilename, sibling.size or 0, sha256 or ""))
        return Repository(name, info.sha or revision or "main", tuple(files))


def choices(repository: Repository) -> list[Choice]:
    """The models in it, small ones first."""
    found = [
        Choice(file.name, (file,))
        for file in repository.files
        if file.name.lower().endswith(".gguf")
        and not PART.fullmatch(file.name)
        and "mmproj" not in file.name.lower()
    ]
    parts: dict[tuple[str, str], list[RemoteFile]] = {}
    for file in sorted(repository.files, key=lambda file: file.name):
        if match := PART.fullmatch(file.name):
            parts.setdefault((match[1], match[3]), []).append(file)
    for (stem, count), files in parts.items():
        if len(files) == int(count):
            found.append(Choice(f"{stem}.gguf", tuple(files), Path(stem).name))
    weights = [f for f in repository.files if f.name.endswith(".safetensors") and "/" not in f.name]
    named = [f for f in weights if f.name.startswith("model")]
    if named and any(f.name == "config.json" for f in repository.files):
        beside = [f for f in repository.files if f.name in BESIDE]
        folder = repository.name.partition("/")[2]
        found.append(Choice("safetensors", (*beside, *named), folder))
    return sorted(found, key=lambda choice: choice.size)


def type_of(choice: Choice) -> str:
    """The quantisation that a file's name tells: "Q4_K_M"; "" where it tells none."""
    stem = Path(choice.label).stem.upper()
    found = re.findall(r"(?:^|[-._])((?:I?Q\d\w*|BF16|F16|F32|MXFP4\w*))(?=$|[-.])", stem)
    return found[-1] if found else ""


def default(found: Sequence[Choice]) -> Choice:
    """The one to take where nobody says: the first type of PREFERRED, else the smallest."""
    for kind in PREFERRED:
        for choice in found:
            if type_of(choice) == kind:
                return choice
    return found[0]


def pick(found: Sequence[Choice], wanted: str, repository: str) -> Choice:
    """The one that is called so, or is of the type called so."""
    exact = [c for c in found if c.label == wanted or c.label.endswith("/" + wanted)]
    of_type = [c for c in found if type_of(c) == wanted.upper()]
    if not (exact or of_type):
        names = ", ".join(type_of(c) or c.label for c in found)
        raise HubError(f"{repository} has no {wanted!r}", f"it has {names}")
    return (exact or of_type)[0]


# -- getting files


class Counted:
    """A file that tells how much was written to it, and hashes it."""

    def __init__(self, file: BinaryIO, tell: Callable[[int], None]) -> None:
        self._file, self._tell_bytes = file, tell
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> int:
        """Write all of it."""
        self._file.write(data)
        self.digest.update(data)
        self._tell_bytes(self._file.tell())
        return len(data)

    def tell(self) -> int:
        """Where it stands."""
        return self._file.tell()

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go there: only to begin anew, where the server did not go on."""
        return self._file.seek(offset, whence)

    def truncate(self, size: int | None = None) -> int:
        """Cut off what follows."""
        cut = self._file.truncate(size)
        self.rehash()
        return cut

    def flush(self) -> None:
        """Hand what is buffered to the system."""
        self._file.flush()

    def rehash(self) -> None:
        """Hash what is there; it stands at the end then."""
        self.digest = hashlib.sha256()
        self._file.seek(0)
        while data := self._file.read(1 << 20):
            self.digest.update(data)


def fetch(
    repository: Repository, file: RemoteFile, path: Path, tell: Callable[[int], None]
) -> None:
    """Get `file` as `path`; tell(bytes there so far) may raise to give up, and what is there stays.

    HubError where it does not come or its checksum is wrong.
    """
    hub = package()
    download = importlib.import_module("huggingface_hub.file_download")
    headers = importlib.import_module("huggingface_hub.utils").build_hf_headers()
    part = part_of(path, file)
    with plain_errors(repository.name, file=file.name):
        part.parent.mkdir(parents=True, exist_ok=True)
        url = hub.hf_hub_url(
            repository.name, file.name, revision=repository.commit, endpoint=endpoint()
        )
        with part.open("a+b") as opened:
            if not is_ours(part, opened):
                raise HubError(
                    f"{file.name} is being fetched already", "wait for that, or end it first"
                )
            counted = Counted(opened, tell)
            if opened.seek(0, 2) > file.size:
                opened.truncate(0)
            counted.rehash()
            there = opened.tell()
            check_space(path, file.size - there)
            if there < file.size or not file.size:
                download.http_get(
                    url,
                    counted,
                    resume_size=there,
                    headers=headers,
                    expected_size=file.size or None,
                )
            opened.flush()
            os.fsync(opened.fileno())
            if file.sha256 and counted.digest.hexdigest() != file.sha256:
                part.unlink()
                raise HubError(
                    f"{file.name}: what came has another checksum than the hub tells",
                    "get it again",
                )
            part.replace(path)


def get(
    repository: Repository,
    choice: Choice,
    models: Path,
    force: bool,
    looking: Callable[[str], None],
    tell: Callable[[int, int], None],
) -> tuple[Path, bool]:
    """Get the files of a choice into the folder `models`: (what to open, whether any came).

    What is there already and is the hub's stays; HubError for another of that name, unless `force`.
    looking(name) tells of a file whose checksum is taken; tell(bytes there, in all) may raise to
    give up: a later call goes on there.
    """
    target = models / (choice.folder or Path(choice.label).name)
    wanted = [
        (file, target / Path(file.name).name if choice.folder else target) for file in choice.files
    ]
    todo = []
    for file, path in wanted:
        looking(path.name)
        if is_there(path, file):
            continue
        if path.exists() and not force:
            raise HubError(
                f"{path} is there already, and is another file", "--force writes over it"
            )
        todo.append((file, path))
    target.parent.mkdir(parents=True, exist_ok=True)
    if todo:
        check_space(target, sum(missing(path, file) for file, path in todo))
    total, before = sum(file.size for file, _ in todo), 0
    for file, path in todo:
        fetch(repository, file, path, partial(_tell_all, tell, before, total))
        before += file.size
    # a model in several GGUF files is opened by its first
    return (wanted[0][1] if choice.label.endswith(".gguf") else target), bool(todo)


def _tell_all(tell: Callable[[int, int], None], before: int, total: int, there: int) -> None:
    tell(before + there, total)


def is_there(path: Path, file: RemoteFile) -> bool:
    """Whether `path` is that file already."""
    if not path.is_file() or path.stat().st_size != file.size:
        return False
    if not file.sha256:
        return True
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest() == file.sha256


def missing(path: Path, file: RemoteFile) -> int:
    """Bytes of it that are still to come."""
    part = part_of(path, file)
    return file.size - (min(part.stat().st_size, file.size) if part.is_file() else 0)


def part_of(path: Path, file: RemoteFile) -> Path:
    """Where the beginning of a file waits for its rest."""
    return path.with_name(f".{path.name[:150]}.{file.sha256[:8] or 'new'}.part")


def check_space(path: Path, size: int) -> None:
    """HubError where the disk has less than `size` bytes left."""
    free = shutil.disk_usage(path.parent).free
    if free < size:
        raise HubError(
            f"{path.name} needs {size / 1e9:,.2f} GB of disk, and {free / 1e9:,.2f} GB are free",
            "make room, or name a smaller type",
        )


# -- what goes wrong


def endpoint() -> str:
    """Where the hub is."""
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or "https://huggingface.co"


def package() -> Any:
    """The huggingface_hub package; HubError tells how to install it."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        hub = importlib.import_module("huggingface_hub")
    except ImportError:
        raise HubError("the hub needs the package huggingface_hub", INSTALL) from None
    logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)
    return hub


@contextmanager
def plain_errors(repository: str, revision: str | None = None, file: str = "") -> Iterator[None]:
    """What huggingface_hub, its HTTP client and the disk raise, as a HubError."""
    try:
        yield
    except FiresideError:
        raise
    except Exception as error:
        told = explain(error, repository, revision, file)
        if told is None:
            raise
        raise told from error


def explain(error: Exception, repository: str, revision: str | None, file: str) -> HubError | None:
    """The error in plain words; None where it is none of the hub's, the network's or the disk's."""
    errors = importlib.import_module("huggingface_hub.errors")
    where = f"{repository}: {file}" if file else repository
    if isinstance(error, errors.OfflineModeIsEnabled):
        return HubError("HF_HUB_OFFLINE is set, so that nothing is fetched", "unset it")
    if isinstance(error, errors.GatedRepoError):
        return HubError(
            f"{repository} is gated: its owner gives access to those who ask (403)",
            f"ask on https://huggingface.co/{repository}, then set HF_TOKEN or run `hf auth login`",
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return HubError(f"{repository} has no revision {revision!r} (404)", "leave --revision out")
    if isinstance(error, errors.RepositoryNotFoundError):
        return HubError(
            f"{repository}: no such repository, or a private one (404, 401)",
            "check the name; for a private one set HF_TOKEN or run `hf auth login`",
        )
    if isinstance(error, errors.EntryNotFoundError):
        return HubError(f"{where}: no such file (404)", "it may have been taken away")
    status = getattr(getattr(error, "response", None), "status_code", 0)
    if status in (401, 403):
        return HubError(
            f"{where}: access refused ({status})", "set HF_TOKEN to a token that may read it"
        )
    if status == 429:
        return HubError(
            f"{where}: too many requests (429)", "wait a while; HF_TOKEN raises the limit"
        )
    if status >= 400:
        return HubError(f"{where}: the hub answers {status}", "try again later")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return HubError("the disk is full", "make room and run it again: it goes on where it was")
    kinds = {kind.__name__ for kind in type(error).__mro__}
    proxies = {"ProxyError"}
    broken = {"TransportError", "ConnectionError", "Timeout", "RequestException"}
    if kinds & proxies:
        return HubError("the proxy does not answer", "check HTTPS_PROXY")
    if kinds & broken:
        return HubError(
            f"{endpoint()} cannot be reached: {str(error)[:120] or type(error).__name__}",
            "check the network (and HTTPS_PROXY); what came so far is kept",
        )
    if isinstance(error, OSError) and "Consistency check failed" in str(error):
        return HubError(f"{where}: the connection ended early", "run it again: it goes on there")
    return None
