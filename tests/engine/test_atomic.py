"""Files that appear whole, and what is left where they do not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fireside.engine import CheckpointError
from fireside.engine.checkpoints import atomic
from fireside.engine.checkpoints.atomic import replacing

KILLED = """
import os, signal, sys
from pathlib import Path
from fireside.engine.checkpoints.atomic import replacing
with replacing(Path(sys.argv[1])) as file:
    file.write(b"half")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with replacing(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["a"]


def test_what_a_killed_program_left_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "a [1].gguf"
    for _ in range(2):  # the second removes what the first one left
        subprocess.run([sys.executable, "-c", KILLED, path], check=False, timeout=60)
        (left,) = names(tmp_path)
        assert left.startswith(".a [1].gguf.")
        assert left.endswith(".unfinished")
        assert (tmp_path / left).read_bytes() == b"half"
    with replacing(path) as file:
        file.write(b"whole")
    assert names(tmp_path) == [path.name]


def test_what_somebody_still_writes_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with replacing(path) as slow:
        slow.write(b"slow")
        with replacing(path) as quick:
            quick.write(b"quick")
        assert path.read_bytes() == b"quick"
        assert len(names(tmp_path)) == 2
    assert path.read_bytes() == b"slow"
    assert names(tmp_path) == ["a"]


def test_files_of_others_are_not_removed(tmp_path: Path) -> None:
    others = (".a.0123abcd.part", ".a.unfinished", ".b.0123abcd.unfinished", ".a.0123.unfinished")
    for name in others:
        (tmp_path / name).write_bytes(b"mine")
    with replacing(tmp_path / "a") as file:
        file.write(b"new")
    assert names(tmp_path) == sorted([*others, "a"])


def test_what_the_disk_says_meanwhile_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(atomic, "FLUSHED_EVERY", 0)
    monkeypatch.setattr(os, "fdatasync", fail, raising=False)
    with pytest.raises(CheckpointError, match="Input/output error"):  # noqa: SIM117
        with replacing(tmp_path / "a") as file:
            file.write(b"new")
    assert names(tmp_path) == []
