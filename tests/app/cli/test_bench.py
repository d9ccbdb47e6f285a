"""`fireside bench` as a process, on a tiny model, with a peer that is a script of ours."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fireside.app import bench, bench_llama_cpp
from fireside.engine.executors.native_library import load
from fireside.engine.executors.native_measure import instruction_sets
from tests.command import COMMAND, Cli

QUICK = ("--prefill", "8,16,999", "--decode", "8", "--repeat", "1", "--threads", "1")
KEYS = [
    "model", "quant", "kernels", "isa", "threads", "prefill_tok_s", "decode_tok_s", "rss_mb",
]  # fmt: skip

PEER = """#!{python}
import json, os, signal, sys, time
mode = {mode!r}
if sys.argv[1] == "-c":
    sys.exit(mode == "missing")
assert sys.argv[1].endswith("bench_llama_cpp.py")
case = json.loads(sys.stdin.readline())
if mode == "refuses":
    print(json.dumps({{"error": "RuntimeError", "message": "no | such", "hint": ""}}), flush=True)
    sys.exit()
facts = {{"kernels": "llama.cpp 9", "isa": "avx9", "threads": case["threads"], "load_s": 0.5,
          "decode": case["decode"], "at": {{start: 4 for start in case["at"]}}}}
if mode == "waits":
    facts["isa"] = os.environ.get("OMP_WAIT_POLICY", "as it likes")
print(json.dumps(facts), flush=True)
for line in sys.stdin:
    if mode == "crashes":
        sys.stderr.write("here it\\n   broke \\n")
        sys.stderr.flush()
        os.kill(os.getpid(), signal.SIGSEGV)
    if mode == "hangs":
        time.sleep(1000)
    times = {{"prefill_s": {{"8": 8 / 0.5, "16": 16 / 0.5}}, "decode_s": case["decode"] / 0.25,
             "at_s": {{start: 4 / 0.5 for start in case["at"]}}}}
    print(json.dumps({{**times, "rss": 5e6}}), flush=True)
"""

needs_extension = pytest.mark.skipif(load()[1] is None, reason="the C extension was not built")


def peer(folder: Path, mode: str = "") -> Path:
    """An interpreter that has llama-cpp-python, or so it says."""
    path = folder / "python"
    path.write_text(PEER.format(python=sys.executable, mode=mode), encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def rows(stdout: bytes) -> list[list[str]]:
    """The cells of every row of the first table, the rule left out."""
    lines: list[str] = []
    for line in stdout.decode().splitlines():
        if line.startswith("|"):
            lines.append(line)
        elif lines:
            break
    assert len({len(line) for line in lines}) == 1
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    assert len({len(row) for row in cells}) == 1
    return [cells[0], *cells[2:]]


def test_a_table(cli: Cli) -> None:
    done = cli("bench", cli.model, *QUICK, "--quant", "none,q4", "--kernels", "auto,numpy")
    assert (done.returncode, done.stderr) == (0, b"")
    first = done.stdout.decode().splitlines()[0]
    assert first.startswith("Fireside ")
    assert re.search(r"\d cores?, ", first)
    assert "kernels " in first
    head, *body = rows(done.stdout)
    assert head == [
        "model", "quant", "kernels", "threads", "prefill 8", "prefill 16", "decode 8",
        "% of floor", "GB/s", "MB/token", "MB",
    ]  # fmt: skip
    assert len(body) == 4
    assert {row[1] for row in body} == {"none (F32)", "q4"}
    assert not any("-" in row for row in body)


def test_json(cli: Cli) -> None:
    done = cli("bench", cli.model, *QUICK, "--quant", "q8", "--json")
    (result,) = json.loads(done.stdout)
    assert list(result)[: len(KEYS)] == KEYS
    assert (result["model"], result["quant"], result["threads"]) == ("tiny", "q8", 1)
    assert result["prefill_tok_s"].keys() == {"8", "16"}  # 999 is longer than its context
    assert result["decode_tok_s"] > 0
    assert result["rss_mb"] > 10
    floor = 1e9 * result["read_gb_s"] / result["bytes_per_token"]
    assert result["floor_tok_s"] == pytest.approx(floor, rel=0.05)
    assert (result["ratios"], result["profile"], result["error"]) == (None, None, "")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--quant", "q5"], 2),
        (["--kernels", "cuda"], 2),
        (["--threads", "0"], 2),
        (["--prefill", ""], 2),
        (["--repeat", "0"], 2),
        (["--isa", "avx9"], 2),
        (["--isa", "reference", "--kernels", "numpy"], 2),
        (["--compare", "torch"], 2),
        (["--at", "0"], 2),
        (["--peer-limit", "0"], 2),
        (["--compare", "llama.cpp", "--quant", "none,q8"], 2),
        (["--compare", "llama.cpp", "--peer-python", "/nowhere/python"], 1),
        (["absent"], 3),
    ],
)
def test_mistakes(cli: Cli, arguments: list[str], code: int) -> None:
    done = cli("bench", *arguments)
    assert (done.returncode, done.stdout) == (code, b"")
    assert done.stderr.startswith(b"fireside: error: ")
    assert done.stderr.count(b"\n") == 1


# -- instruction sets ---------------------------------------------------------------------------


@needs_extension
def test_isa_list(cli: Cli) -> None:
    done = cli("bench", "--isa", "list", env={"FIRESIDE_ISA": "reference"})
    body = rows(done.stdout)[1:]
    assert [(row[0], row[1] == "yes") for row in body] == list(instruction_sets().items())
    assert [row[0] for row in body if row[2]] == ["reference"]
    assert all(row[3] for row in body)


@needs_extension
def test_isa_is_forced(cli: Cli) -> None:
    usable = [name for name, has in instruction_sets().items() if has]
    wanted = list(dict.fromkeys([usable[0], usable[-1]]))
    done = cli("bench", cli.model, *QUICK, "--quant", "q8", "--isa", ",".join(wanted), "--json")
    assert [result["isa"] for result in json.loads(done.stdout)] == wanted


# -- a position in the context ------------------------------------------------------------------


def test_at(cli: Cli, tmp_path: Path) -> None:
    """The tiny model's context is 256 long: from 252 there are 4 tokens to write, from 256 none."""
    python = peer(tmp_path)
    flags = ("--at", "20,252,256", "--compare", "llama.cpp", "--peer-python", python)
    done = cli("bench", cli.model, *QUICK, *flags, "--json")
    ours, theirs = json.loads(done.stdout)
    assert ours["at_tok_s"].keys() == {"20", "252"}
    assert all(value > 0 for value in ours["at_tok_s"].values())
    assert theirs["at_tok_s"] == {"20": 0.5, "252": 0.5, "256": 0.5}
    assert ours["ratios"]["at 20"] == pytest.approx(ours["at_tok_s"]["20"] / 0.5, rel=0.01)
    head, _, peers = rows(cli("bench", cli.model, *QUICK, *flags).stdout)
    assert head[6:10] == ["decode 8", "at 20", "at 252", "at 256"]
    assert peers[7] == "0.5"


# -- profile ------------------------------------------------------------------------------------


@needs_extension
def test_profile(cli: Cli) -> None:
    done = cli("bench", cli.model, *QUICK, "--quant", "q8", "--profile", "--json")
    (result,) = json.loads(done.stdout)
    assert list(result["profile"]) == ["decode", "prefill 8", "prefill 16"]
    for part in result["profile"].values():
        assert all(seconds >= 0 for seconds in part.values())
        assert part["matrices"] > 0
        assert part["norms, activations and rounding before matrices"] > 0
        assert part["attention, with rope"] > 0


def test_profile_as_a_table(cli: Cli) -> None:
    done = cli("bench", cli.model, *QUICK, "--quant", "q8", "--profile", "--kernels", "auto,numpy")
    assert done.returncode == 0
    text = done.stdout.decode()
    assert ("| total " in text) == (load()[1] is not None)


# -- a peer -------------------------------------------------------------------------------------


def test_compare(cli: Cli, tmp_path: Path) -> None:
    python = peer(tmp_path)
    done = cli(
        *("bench", cli.model, *QUICK, "--compare", "llama.cpp", "--peer-python", python, "--json")
    )
    assert done.stderr == b""
    ours, theirs = json.loads(done.stdout)
    assert (ours["quant"], theirs["quant"]) == ("none", "none")
    assert (theirs["model"], theirs["kernels"], theirs["isa"]) == ("tiny", "llama.cpp 9", "avx9")
    assert theirs["prefill_tok_s"] == {"8": 0.5, "16": 0.5}
    assert (theirs["decode_tok_s"], theirs["rss_mb"]) == (0.25, 5.0)
    assert theirs["floor_tok_s"] == ours["floor_tok_s"]
    assert ours["ratios"].keys() == {"prefill 8", "prefill 16", "decode"}
    assert ours["ratios"]["decode"] == pytest.approx(ours["decode_tok_s"] / 0.25, rel=0.01)


def test_compare_as_a_table(cli: Cli, tmp_path: Path) -> None:
    env = {"FIRESIDE_PEER_PYTHON": str(peer(tmp_path))}
    done = cli("bench", cli.model, *QUICK, "--compare", "llama.cpp", env=env)
    head, ours, theirs = rows(done.stdout)
    assert theirs[2] == "llama.cpp 9 avx9"
    assert "note" not in head
    for column in (4, 5, 6):
        assert re.fullmatch(r"[0-9.,]+ \([0-9.]+x\)", ours[column])
        assert re.fullmatch(r"[0-9.,]+", theirs[column])


@needs_extension
def test_a_peer_waits_in_its_own_way(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What Fireside sets for its own OpenMP does not slow a peer down."""
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)  # this process has it set too
    python = peer(tmp_path, "waits")
    done = cli(
        *("bench", cli.model, *QUICK, "--compare", "llama.cpp", "--peer-python", python),
        *("--isa", "reference", "--json"),
    )
    assert [result["isa"] for result in json.loads(done.stdout)] == ["reference", "as it likes"]


@pytest.mark.parametrize(
    ("mode", "note"),
    [
        ("crashes", "failed: SIGSEGV: here it broke"),
        ("refuses", "failed: no / such"),
        ("hangs", "failed: no answer within 3 s"),
    ],
)
def test_a_peer_that_fails_is_a_line(cli: Cli, tmp_path: Path, mode: str, note: str) -> None:
    note = note.replace("here it broke", "broke")  # its last line
    python = peer(tmp_path, mode)
    flags = ("--compare", "llama.cpp", "--peer-python", python, "--peer-limit", "3")
    done = cli("bench", cli.model, *QUICK, *flags)
    assert (done.returncode, done.stderr) == (0, b"")
    head, ours, theirs = rows(done.stdout)
    assert head[-1] == "note"
    assert (ours[-1], theirs[-1]) == ("", note)
    assert set(theirs[4:-1]) == {"-"}
    assert "-" not in ours[4:-1]


def test_no_peer(cli: Cli, tmp_path: Path) -> None:
    python = peer(tmp_path, "missing")
    done = cli("bench", cli.model, "--compare", "llama.cpp", "--peer-python", python)
    assert done.returncode == 1
    assert b"fireside[bench]" in done.stderr
    assert done.stderr.count(b"\n") == 1


STUB = """
import ctypes
__version__ = "0.0.1"
calls = []
class Settings: pass
def llama_log_callback(f): return f
def llama_log_set(callback, data): callback(2, b"loud", data)
def llama_backend_init(): print("a library that prints")
def llama_model_default_params(): return Settings()
def llama_model_load_from_file(path, settings): return path if b"gguf" in path else None
def llama_model_n_ctx_train(model): return 20
def llama_context_default_params(): return Settings()
def llama_init_from_model(model, settings): return settings
def llama_get_memory(context): return context
def llama_model_get_vocab(model): return model
def llama_vocab_n_tokens(vocab): return 100
def llama_print_system_info(): return b"CPU : AVX = 1 | AVX2 = 1 | AVX512 = 0 |"
def llama_memory_clear(memory, data): memory.used = 0
def llama_batch_get_one(ids, count): return list(ids[:count])
def llama_decode(context, ids):
    context.used += len(ids)
    return 0 if context.used <= 20 and all(0 <= i < 100 for i in ids) else 1
def llama_synchronize(context): pass
"""


@pytest.mark.parametrize("path", ["x.gguf", "x.bin"])
def test_the_script_of_the_peer(tmp_path: Path, path: str) -> None:
    """It speaks the protocol, over a module that only looks like llama_cpp."""
    (tmp_path / "llama_cpp.py").write_text(STUB, encoding="utf-8")
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    case = bench.Case(
        Path(path), "none", "llama.cpp", 2, (4, 16, 64), 30, python=str(python), at=(10, 15, 20)
    )
    runner = bench.Runner.start(case, os.environ)
    try:
        runner.measure()
        runner.measure()
        result = runner.result()
    finally:
        runner.stop()
    if path == "x.bin":
        assert result.error == "llama.cpp does not load the file"
        return
    assert (result.kernels, result.isa, result.threads) == (
        "llama.cpp (llama-cpp-python 0.0.1)",
        "avx2",
        2,
    )
    assert result.prefill_tok_s.keys() == {"4", "16"}
    assert result.decode_tok_s
    assert runner.facts["decode"] == 20  # its context
    assert runner.facts["at"] == {"10": 10, "15": 5}
    assert result.at_tok_s.keys() == {"10", "15"}
    assert Path(bench_llama_cpp.__file__).parent == Path(bench.__file__).parent


def test_a_peer_that_hangs_does_not_outlive_us(cli: Cli, tmp_path: Path) -> None:
    """A signal reaches one process alone: the others end with it."""
    told = tmp_path / "pid"
    hang = f"open({str(told)!r}, 'w').write(f'{{os.getpid()}}.'); time.sleep(1000)"
    stub = STUB.replace("    context.used += len(ids)\n", f"    import os, time; {hang}\n")
    (tmp_path / "llama_cpp.py").write_text(stub, encoding="utf-8")
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    model = tmp_path / "x.gguf"
    make = cli("bench", "--make-shape", "32/64/1/2", model)
    assert make.returncode == 0
    flags = ("--compare", "llama.cpp", "--peer-python", str(python), *QUICK)
    process = subprocess.Popen([*COMMAND, "bench", str(model), *flags], env=cli.env())
    try:
        until = time.monotonic() + 60
        while not (told.exists() and told.read_text().endswith(".")):
            assert time.monotonic() < until
            time.sleep(0.05)
    finally:
        process.terminate()
        process.wait()
    pid = int(told.read_text()[:-1])
    until = time.monotonic() + 60
    while runs(pid):
        assert time.monotonic() < until
        time.sleep(0.05)


def runs(pid: int) -> bool:
    """Whether there is such a process; one that nobody has buried yet has ended too."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, check=False)
    return state.stdout.strip()[:1] not in (b"", b"Z")


def test_ctrl_c(cli: Cli) -> None:
    """One of us is told, says nothing, and all are gone."""
    process = subprocess.Popen(
        [*COMMAND, "bench", str(cli.model), "--quant", "none,q8", "--repeat", "100000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=cli.env(),
        start_new_session=True,
    )
    time.sleep(2)  # in the middle of it, or still loading: the same is expected
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)  # ends only when nobody holds the pipes any more
    assert (process.returncode, out, err) == (130, b"", b"")


# -- who takes turns ----------------------------------------------------------------------------


def test_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    def case(name: str, threads: int, kernels: str = "native") -> bench.Case:
        return bench.Case(Path(name), "none", kernels, threads, (8,), 8)

    a1, a2, b1 = case("a", 1), case("a", 2), case("b", 1)
    peer_a1, peer_b1 = case("a", 1, "llama.cpp"), case("b", 1, "llama.cpp")
    cases = [a1, peer_a1, a2, b1, peer_b1]
    monkeypatch.setattr(bench.Case, "nbytes", lambda self: 30 if self.path.name == "b" else 10)
    monkeypatch.setattr(bench, "SHARE_OF_MEMORY", 1)
    for free, expected in (
        (90, [cases]),
        (89, [[a1, peer_a1], [a2], [b1, peer_b1]]),
        (59, [[a1, peer_a1], [a2], [b1], [peer_b1]]),
        (0, [[item] for item in cases]),
    ):
        monkeypatch.setattr(bench, "free_memory", lambda free=free: free)
        assert bench.groups(cases) == expected


def test_free_memory() -> None:
    assert bench.free_memory() > 0
