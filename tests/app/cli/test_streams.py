"""Signals, closed pipes, full disks, terminals: what surrounds the text."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import pexpect
import pytest

from tests.command import COMMAND, Cli

SLIDING = ("--context", "16", "--overflow", "slide")
ENDLESS = ("write", "-t", "0", "--overflow", "slide", "--kernels", "numpy")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_story_that_is_being_written(
    cli: Cli, number: signal.Signals, code: int
) -> None:
    process = cli.start(*ENDLESS, "--no-echo")
    assert process.stdout is not None
    begun = process.stdout.read(20)
    process.send_signal(number)
    rest, errors = process.communicate(timeout=20)
    assert process.returncode == code
    assert len(begun + rest) >= 20
    assert b"Traceback" not in errors


def test_json_is_whole_when_interrupted(cli: Cli) -> None:
    import json

    process = cli.start(*ENDLESS, "--jsonl")
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(20)]
    process.send_signal(signal.SIGINT)
    rest = process.stdout.read()  # not communicate(), which does not see what readline() has read
    process.wait(timeout=20)
    events = [json.loads(line) for line in [*lines, *rest.splitlines()]]
    assert events[-1]["event"] == "finished"
    assert events[-1]["finish_reason"] == "aborted"
    assert process.returncode == 130


@pytest.mark.parametrize("delay", [0.05, 0.1, 0.2, 0.3, 0.4])
def test_an_interrupt_at_any_moment_leaves_quietly(cli: Cli, delay: float) -> None:
    process = cli.start(*ENDLESS)
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    if b"fireside/app" not in errors and b"Traceback" in errors:
        pytest.skip("Python itself was still starting")
    assert process.returncode == 130
    assert errors == b"" or errors.startswith(b"fireside: note:")


@pytest.mark.parametrize(
    ("module", "command"),
    [
        ("fireside.app.cli.interrupts", "write"),
        ("threading", "write"),
        ("fireside.app.cli.failures", "write"),
        ("fireside.app.cli.writing", "write"),
        ("fireside.engine.executors.native", "write"),
        ("fireside.engine.session", "write"),
        ("click", "paths"),
    ],
)
def test_an_interrupt_in_the_middle_of_an_import_leaves_quietly(
    cli: Cli, module: str, command: str
) -> None:
    code = (
        "import os, sys\n"
        "from fireside.app.cli import main\n"
        "class Interrupt:\n"
        "    @staticmethod\n"
        "    def find_spec(name, path=None, target=None):\n"
        "        if name == sys.argv[1]:\n"
        "            os.kill(os.getpid(), 2)\n"
        "sys.meta_path.insert(0, Interrupt)\n"
        "sys.modules.pop(sys.argv[1], None)\n"
        "sys.exit(main(sys.argv[2:]))\n"
    )
    done = subprocess.run(
        [COMMAND[0], "-c", code, module, command], stdin=subprocess.DEVNULL, capture_output=True,
        env=cli.env(), timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (130, b"")
    assert done.stdout == b""


def test_an_interrupt_while_the_prompt_is_awaited(cli: Cli) -> None:
    process = cli.start("write", stdin=subprocess.PIPE)
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=20)
    assert (process.returncode, out, errors) == (130, b"", b"")


def test_a_closed_pipe_is_quiet(cli: Cli) -> None:
    process = cli.start(*ENDLESS)
    assert process.stdout is not None
    process.stdout.read(10)
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    assert process.wait(timeout=20) == 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full here")  # noqa: PTH110
@pytest.mark.parametrize("command", [["write", "-n", "5", "Once"], ["paths"], ["--help"]])
def test_a_full_disk_is_one_line(cli: Cli, command: list[str]) -> None:
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        done = subprocess.run(
            [*COMMAND, *command], stdin=subprocess.DEVNULL, stdout=full, stderr=subprocess.PIPE,
            env=cli.env(), timeout=60,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == b"fireside: error: cannot write: No space left on device\n"


@pytest.mark.parametrize("command", ["write -n 5 Once", "paths"])
def test_stdout_that_is_closed_is_one_line(cli: Cli, command: str) -> None:
    line = f"exec {' '.join(COMMAND)} {command} >&- </dev/null"
    done = subprocess.run(["sh", "-c", line], capture_output=True, env=cli.env(), timeout=60)
    assert done.returncode == 1
    assert done.stderr == b"fireside: error: cannot write: stdout is closed\n"


# -- terminals ----------------------------------------------------------------------------------


def terminal(cli: Cli, *arguments: str, **more: str) -> pexpect.spawn:
    return pexpect.spawn(
        COMMAND[0], [*COMMAND[1:], *arguments], env=cli.env(more), timeout=60, encoding="utf-8",
        codec_errors="replace", dimensions=(24, 80),
    )  # fmt: skip


def test_on_a_terminal_the_text_ends_with_a_line_break_and_holds_no_controls(cli: Cli) -> None:
    child = terminal(cli, "write", "--seed", "1", "-n", "60", "Once")
    shown = child.read()
    assert shown.startswith("Once")
    assert shown.endswith("\r\n")
    assert not [c for c in shown if ord(c) < 32 and c not in "\r\n\t"]


def test_progress_is_erased_before_the_text(cli: Cli) -> None:
    # a delay of nothing: the line is shown at once
    code = (
        "import sys; from fireside.app.cli import main, output;"
        "output.Progress.DELAY_S = 0; "
        "sys.exit(main(sys.argv[1:]))"
    )
    child = pexpect.spawn(
        COMMAND[0], ["-c", code, "write", "--seed", "1", "-n", "60", *SLIDING, "Once"],
        env=cli.env({"NO_COLOR": "1", "TERM": "xterm"}), timeout=60, encoding="utf-8",
        codec_errors="replace",
    )  # fmt: skip
    shown = child.read()
    assert "loading tiny.gguf" in shown
    assert "\x1b[2m" not in shown
    before, _, after = shown.rpartition("\r\x1b[K")
    assert after.startswith("Once")
    assert "Once" not in before


def test_the_application_does_not_open_where_nobody_sees_it(cli: Cli) -> None:
    line = f"{' '.join(COMMAND)} 2>{cli.home}/errors"
    child = pexpect.spawn("sh", ["-c", line], env=cli.env(), timeout=60)
    assert child.read() == b""
    child.close()
    assert child.exitstatus == 2
    told = (cli.home / "errors").read_text(encoding="utf-8")
    assert told.startswith("fireside: error: the terminal application needs a terminal; ")


def test_ctrl_c_on_a_terminal(cli: Cli) -> None:
    child = terminal(cli, *ENDLESS, "Once")
    child.expect("Once.{10}")
    child.sendintr()
    rest = child.read()
    child.close()
    assert child.exitstatus == 130
    assert "Traceback" not in rest
