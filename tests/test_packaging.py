"""Wheel and sdist as a user gets them: built, installed elsewhere, and telling a story."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.timeout(600)


def run(command: list[str | Path], cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        capture_output=True,
        text=True,
        env={**os.environ, **env},
    )
    if done.returncode and "Could not find a version" in done.stdout + done.stderr:
        pytest.skip("the package index cannot be reached, and building needs it")
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of what git would check out, so that no stale build/ can help or harm."""
    source = tmp_path_factory.mktemp("source") / "fireside"
    files = run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], ROOT)
    for name in filter(None, files.stdout.split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, source / name)
    out = tmp_path_factory.mktemp("dist")
    run([sys.executable, "-m", "build", "--sdist", "--outdir", out, source], source)
    return next(out.glob("*.tar.gz"))


def build_wheel(sdist: Path, folder: Path, **env: str) -> Path:
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    source = next(folder.iterdir())
    out = folder / "dist"
    run([sys.executable, "-m", "build", "--wheel", "--outdir", out, source], source, **env)
    return next(out.glob("*.whl"))


def install(wheel: Path, folder: Path) -> Path:
    """A fresh virtual environment with the wheel in it; its bin folder."""
    venv.create(folder / "venv", with_pip=True)
    bin_folder = folder / "venv" / "bin"
    run([bin_folder / "python", "-m", "pip", "install", "-q", wheel], folder)
    return bin_folder


def write(bin_folder: Path, cwd: Path, *arguments: str) -> dict[str, object]:
    command = [bin_folder / "fireside", "write", "Once upon a time", "-n", "12", "--seed", "3"]
    env = {"FIRESIDE_DATA_DIR": str(cwd / "data"), "PYTHONPATH": ""}
    done = run([*command, "--json", *arguments], cwd, **env)
    result: dict[str, object] = json.loads(done.stdout)
    return result


def test_the_wheel_from_the_sdist_tells_a_story(sdist: Path, tmp_path: Path) -> None:
    wheel = build_wheel(sdist, tmp_path / "build", FIRESIDE_REQUIRE_KERNELS="1")
    assert "abi3" in wheel.name
    packed = set(zipfile.ZipFile(wheel).namelist())
    for folder in ("app", "engine"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in {".py", ".tcss", ".sql"} or path.name == "py.typed":
                assert f"fireside/{folder}/{path.relative_to(ROOT / folder)}" in packed
    assert "fireside/assets/storyteller/storyteller.gguf" in packed
    assert "fireside/assets/openings.txt" in packed
    for path in (ROOT / "assets" / "stories").iterdir():
        assert f"fireside/assets/stories/{path.name}" in packed
    bin_folder = install(wheel, tmp_path)
    native = write(bin_folder, tmp_path, "--kernels", "native")
    plain = write(bin_folder, tmp_path, "--kernels", "numpy")
    assert native["kernels"] == "native"
    assert plain["kernels"] == "numpy"
    assert native["text"] == plain["text"] != ""


def test_without_a_compiler_it_installs_and_says_so(sdist: Path, tmp_path: Path) -> None:
    wheel = build_wheel(sdist, tmp_path / "build", CC="false", FIRESIDE_REQUIRE_KERNELS="")
    bin_folder = install(wheel, tmp_path)
    assert write(bin_folder, tmp_path)["kernels"] == "numpy"
    version = run([bin_folder / "fireside", "--version"], tmp_path).stdout
    assert "numpy" in version
    refused = subprocess.run(
        [bin_folder / "fireside", "write", "x", "--kernels", "native"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert refused.returncode == 1
    assert "not built" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_kernels_can_be_required(sdist: Path, tmp_path: Path) -> None:
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    source = next(tmp_path.iterdir())
    done = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path / "out"), str(source)],
        capture_output=True,
        text=True,
        env={**os.environ, "CC": "false", "FIRESIDE_REQUIRE_KERNELS": "1"},
    )
    assert done.returncode != 0
