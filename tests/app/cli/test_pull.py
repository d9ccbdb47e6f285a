"""`fireside pull` as a process, against a server on this machine that answers as the hub does."""

from __future__ import annotations

import errno
import json
import os
import pty
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fireside.app import hub
from fireside.engine import open_checkpoint
from fireside.engine.convert import convert
from tests.app.hub_server import Hub, running_hub
from tests.command import COMMAND, Cli

pytest.importorskip("huggingface_hub", reason="the package huggingface_hub is not installed")


@pytest.fixture
def server() -> Iterator[Hub]:
    with running_hub() as running:
        yield running


Pull = Callable[..., subprocess.CompletedProcess[bytes]]


def environment(server: Hub, tmp_path: Path) -> dict[str, str]:
    return {
        "HF_ENDPOINT": server.url,
        "HF_HOME": str(tmp_path / "hf"),
        "HF_TOKEN": "",
        "NO_PROXY": "*",
        "HF_HUB_DISABLE_XET": "1",
    }


@pytest.fixture
def pull(cli: Cli, server: Hub, tmp_path: Path) -> Pull:
    def run(*arguments: str, **env: str) -> subprocess.CompletedProcess[bytes]:
        return cli("pull", *arguments, env={**environment(server, tmp_path), **env})

    return run


@pytest.fixture
def model(cli: Cli) -> bytes:
    return cli.model.read_bytes()


def models(cli: Cli) -> Path:
    return cli.home / "models"


def test_default_is_q4_k_m_and_it_runs(
    cli: Cli, server: Hub, pull: Pull, model: bytes, tmp_path: Path
) -> None:
    convert(open_checkpoint(cli.model), tmp_path / "q4.gguf", kind="Q4_K")
    small = (tmp_path / "q4.gguf").read_bytes()
    server.repositories["o/tiny"] = {
        "README.md": b"#",
        "tiny.f32.gguf": model,
        "tiny.Q8_0.gguf": b"x",
        "tiny.Q4_K_M.gguf": small,
        "mmproj-tiny-f16.gguf": b"x",
        "big-00001-of-00002.gguf": b"x",
    }
    done = pull("o/tiny")
    assert done.returncode == 0, done.stderr
    path = models(cli) / "tiny.Q4_K_M.gguf"
    assert done.stdout.decode() == f"{path}\n"
    assert path.read_bytes() == small
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    listed = json.loads(cli("models", "--json").stdout)
    assert "tiny.Q4_K_M" in [entry["name"] for entry in listed]
    assert cli("write", "once", "-n", "3", "--model", "tiny.Q4_K_M").returncode == 0
    # the second time nothing is fetched
    before = len(server.asked)
    again = pull("o/tiny:q4_k_m")
    assert again.returncode == 0
    assert again.stdout == done.stdout
    assert len(server.asked) == before + 1


def test_list(server: Hub, pull: Pull) -> None:
    server.repositories["o/many"] = {"b-Q8_0.gguf": b"12345", "sub/a-Q4_0.gguf": b"12", "x": b""}
    done = pull("o/many", "--list", "--json")
    assert [(e["name"], e["type"], e["bytes"]) for e in json.loads(done.stdout)] == [
        ("sub/a-Q4_0.gguf", "Q4_0", 2),
        ("b-Q8_0.gguf", "Q8_0", 5),
    ]
    assert b"b-Q8_0.gguf" in pull("https://huggingface.co/o/many/", "--list").stdout


def test_a_folder_of_safetensors(cli: Cli, server: Hub, pull: Pull) -> None:
    files = {"config.json": b"{}", "model.safetensors": b"no weights", "tokenizer.json": b"{}"}
    server.repositories["o/Folder-1.5"] = {**files, "README.md": b"#", "training.bin": b"x"}
    done = pull("o/Folder-1.5")
    assert done.returncode == 3  # it is there, and told to be unusable
    assert done.stdout.decode() == f"{models(cli) / 'Folder-1.5'}\n"
    found = {p.name: p.read_bytes() for p in (models(cli) / "Folder-1.5").iterdir()}
    assert found == files


def test_a_model_in_several_files(cli: Cli, server: Hub, pull: Pull) -> None:
    parts = {f"big/m-Q4_0-0000{i}-of-00002.gguf": b"part %d" % i for i in (1, 2)}
    server.repositories["o/big"] = {**parts, "m-Q8_0-00001-of-00003.gguf": b"two are missing"}
    listed = json.loads(pull("o/big", "--list", "--json").stdout)
    assert [(e["name"], e["type"], e["files"]) for e in listed] == [
        ("big/m-Q4_0.gguf", "Q4_0", sorted(parts))
    ]
    done = pull("o/big")
    folder = models(cli) / "m-Q4_0"
    assert done.stdout.decode() == f"{folder / 'm-Q4_0-00001-of-00002.gguf'}\n"
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == {
        Path(name).name: data for name, data in parts.items()
    }
    assert done.returncode == 3  # these are no models


def test_a_terminal_is_asked(cli: Cli, server: Hub, model: bytes, tmp_path: Path) -> None:
    server.repositories["o/tiny"] = {"a-Q4_0.gguf": b"x", "b-F32.gguf": model}
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "pull", "o/tiny"],
        stdin=slave,
        stdout=subprocess.PIPE,
        stderr=slave,
        env=cli.env(environment(server, tmp_path)),
    )
    os.close(slave)
    seen = b""
    while b"Which one" not in seen:
        seen += os.read(master, 4096)
    assert b"[1]" in seen[seen.index(b"Which one") :] or b"[1]" in os.read(master, 4096)
    os.write(master, b"2\n")
    out, _ = process.communicate(timeout=60)
    os.close(master)
    assert process.returncode == 0
    assert out.decode() == f"{models(cli) / 'b-F32.gguf'}\n"


def test_it_goes_on_where_it_was_killed(
    cli: Cli, server: Hub, pull: Pull, model: bytes, tmp_path: Path
) -> None:
    data = model + bytes(32 << 20)
    server.repositories["o/tiny"] = {"m.gguf": data}
    server.stall["m.gguf"] = 24 << 20
    process = cli.start("pull", "o/tiny", env=environment(server, tmp_path))
    folder = models(cli)
    deadline = time.monotonic() + 60
    while not any(p.stat().st_size >= 8 << 20 for p in folder.glob(".*.part")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    assert not (folder / "m.gguf").exists()
    (part,) = folder.glob(".*.part")
    there = part.stat().st_size
    server.closing.set()
    done = pull("o/tiny")
    assert (folder / "m.gguf").read_bytes() == data, done.stderr
    assert server.asked[-1][1] == f"bytes={there}-"
    assert [p.name for p in folder.iterdir()] == ["m.gguf"]


def test_two_at_once_do_not_mix(
    cli: Cli, server: Hub, pull: Pull, model: bytes, tmp_path: Path
) -> None:
    data = model + bytes(32 << 20)
    server.repositories["o/tiny"] = {"m.gguf": data}
    server.stall["m.gguf"] = 24 << 20
    first = cli.start("pull", "o/tiny", env=environment(server, tmp_path))
    deadline = time.monotonic() + 60
    while not list(models(cli).glob(".*.part")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    fault(pull("o/tiny"), 1, "m.gguf is being fetched already")
    server.closing.set()
    assert first.wait(60) == 0
    assert (models(cli) / "m.gguf").read_bytes() == data


@pytest.mark.parametrize("ranges", [True, False])
def test_a_connection_that_breaks_is_taken_up_again(
    cli: Cli, server: Hub, pull: Pull, model: bytes, ranges: bool
) -> None:
    server.repositories["o/tiny"] = {"m.gguf": model}
    server.cut["m.gguf"] = len(model) // 2
    server.no_ranges = not ranges
    done = pull("o/tiny")
    assert done.returncode == 0, done.stderr
    assert (models(cli) / "m.gguf").read_bytes() == model


def fault(done: subprocess.CompletedProcess[bytes], code: int, *words: str) -> None:
    assert done.returncode == code, done.stderr
    assert done.stdout == b""
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("fireside: error: ")
    for word in words:
        assert word in line


def test_a_wrong_checksum_leaves_nothing(cli: Cli, server: Hub, pull: Pull, model: bytes) -> None:
    server.repositories["o/tiny"] = {"m.gguf": model}
    server.wrong.add("m.gguf")
    fault(pull("o/tiny"), 1, "another checksum")
    assert list(models(cli).iterdir()) == []


def test_another_file_is_not_written_over(cli: Cli, server: Hub, pull: Pull, model: bytes) -> None:
    server.repositories["o/tiny"] = {"m.gguf": model}
    models(cli).mkdir(parents=True)
    (models(cli) / "m.gguf").write_bytes(b"mine")
    fault(pull("o/tiny"), 1, "is another file")
    assert (models(cli) / "m.gguf").read_bytes() == b"mine"
    assert pull("o/tiny", "--force").returncode == 0
    assert (models(cli) / "m.gguf").read_bytes() == model


def test_what_the_hub_refuses(server: Hub, pull: Pull) -> None:
    server.repositories["o/r"] = {"m-Q8_0.gguf": b"x"}
    server.repositories["o/none"] = {"README.md": b"#"}
    fault(pull("o/missing"), 1, "no such repository, or a private one", "HF_TOKEN")
    fault(pull("o/none"), 1, "no GGUF file")
    fault(pull("o/r:Q2_K"), 1, "has no 'Q2_K'", "it has Q8_0")
    fault(pull("nonsense"), 2, "no OWNER/NAME")
    fault(pull("../x/y"), 2, "no OWNER/NAME")
    server.refuse["/o/r/resolve"] = (403, "GatedRepo")
    fault(pull("o/r"), 1, "is gated", "https://huggingface.co/o/r")
    server.refuse["/o/r/resolve"] = (404, "EntryNotFound")
    fault(pull("o/r"), 1, "no such file (404)")
    server.refuse["/o/r/resolve"] = (403, "")
    fault(pull("o/r"), 1, "access refused (403)")
    server.refuse["/api/models/o/r"] = (404, "RevisionNotFound")
    fault(pull("o/r", "--revision", "v9"), 1, "no revision 'v9'")
    server.refuse["/api/models/o/r"] = (500, "")
    fault(pull("o/r"), 1, "the hub answers 500")


def test_the_way_to_the_hub(server: Hub, pull: Pull) -> None:
    server.repositories["o/r"] = {"m.gguf": b"x"}
    fault(pull("o/r", HF_HUB_OFFLINE="1"), 1, "HF_HUB_OFFLINE is set")
    fault(pull("o/r", HF_ENDPOINT="http://127.0.0.1:9"), 1, "127.0.0.1:9 cannot be reached")
    proxied = {"HF_ENDPOINT": "https://hub.invalid", "NO_PROXY": "", "HTTPS_PROXY": server.url}
    fault(pull("o/r", **proxied), 1, "the proxy does not")
    pull("o/r", HF_TOKEN="hf_secret")
    assert server.tokens[-1] == "Bearer hf_secret"


def test_no_room(cli: Cli, server: Hub, pull: Pull) -> None:
    server.repositories["o/r"] = {"m.gguf": b"x"}
    server.lie["m.gguf"] = 1 << 60
    fault(pull("o/r"), 1, "GB are free")
    told = hub.explain(OSError(errno.ENOSPC, "No space left on device"), "o/r", None, "m")
    assert told is not None
    assert told.message == "the disk is full"


def test_without_the_package(cli: Cli, server: Hub, pull: Pull, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "huggingface_hub.py").write_text("raise ImportError('none here')\n")
    path = os.pathsep.join([str(tmp_path / "none"), os.environ.get("PYTHONPATH", "")])
    fault(pull("o/r", PYTHONPATH=path), 1, "pip install 'fireside[hub]'")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("Llama-3.2-1B-Instruct-Q4_K_M.gguf", "Q4_K_M"),
        ("model.f16.gguf", "F16"),
        ("m-BF16.gguf", "BF16"),
        ("x-IQ4_XS.gguf", "IQ4_XS"),
        ("stories.gguf", ""),
        ("sub/q8_0.gguf", "Q8_0"),
    ],
)
def test_types_in_names(name: str, kind: str) -> None:
    assert hub.type_of(hub.Choice(name, ())) == kind
