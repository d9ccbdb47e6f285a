"""`fireside chat` over pipes and on a terminal."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pexpect
import pytest

from fireside.engine.checkpoints import gguf_writer
from tests.command import COMMAND, Cli
from tests.model_files import small_vocabulary
from tests.models import SHAPES, random_checkpoint

FLAGS = ("chat", "--seed", "1", "-n", "8")


def test_every_piped_line_is_answered(cli: Cli) -> None:
    done = cli(*FLAGS, "--system", "Be kind.", stdin=b"Hello\n\nAgain\n")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.count(b"\n") >= 2
    assert b"Hello" not in done.stdout


def test_commands(cli: Cli, tmp_path: Path) -> None:
    saved = tmp_path / "talk.txt"
    lines = f"/help\nHello\n/again\n/frob\n/save {saved}\n/save\n/undo\n/reset\n/again\n/quit\nNo\n"
    done = cli(*FLAGS, stdin=lines.encode())
    assert done.returncode == 0
    told = done.stderr.decode()
    for words in ("/save", "no command /frob", f"saved to {saved}", "name the file", "0 lines"):
        assert words in told
    assert "nothing was said yet" in told
    assert saved.read_text(encoding="utf-8").startswith("You: Hello\n\nModel: ")
    assert "No" not in done.stdout.decode()


def test_reset_forgets(cli: Cli) -> None:
    once = cli(*FLAGS, stdin=b"Hello\n").stdout
    again = cli(*FLAGS, stdin=b"Other\n/reset\nHello\n").stdout
    assert again.endswith(once)


def test_a_long_conversation_slides(cli: Cli) -> None:
    lines = "".join(f"This is line {i} of a long conversation.\n" for i in range(8))
    done = cli(*FLAGS, "--context", "64", stdin=lines.encode())
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(("flags", "code"), [(["--template", "frob"], 1), (["--model", "frob"], 3)])
def test_mistakes(cli: Cli, flags: list[str], code: int) -> None:
    done = cli("chat", *flags, stdin=b"Hello\n")
    assert done.returncode == code
    assert done.stderr.startswith(b"fireside: error: ")


def test_input_that_is_not_utf8(cli: Cli) -> None:
    done = cli(*FLAGS, stdin=b"a\xff\n")
    assert done.returncode == 2
    assert b"not valid UTF-8" in done.stderr


def test_on_a_terminal(cli: Cli) -> None:
    child = pexpect.spawn(
        COMMAND[0], [*COMMAND[1:], "chat", "-t", "0", "-n", "100000", "--kernels", "numpy"],
        env=cli.env({"TERM": "dumb"}), timeout=60, encoding="utf-8", codec_errors="replace",
    )  # fmt: skip
    child.expect("/help lists the commands")
    child.expect("> ")
    child.sendline("Hello")
    child.expect("Hello\r\n.{10}")  # the echo, then an answer without end
    child.sendintr()
    child.expect("\n> ")  # the answer has ended, the conversation has not
    child.sendline("/quit")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0


def test_ctrl_c_at_the_prompt_leaves(cli: Cli) -> None:
    child = pexpect.spawn(
        COMMAND[0], [*COMMAND[1:], "chat"], env=cli.env({"TERM": "dumb"}), timeout=60,
        encoding="utf-8",
    )  # fmt: skip
    child.expect("> ")
    child.sendintr()
    rest = child.read()
    child.close()
    assert child.exitstatus == 130
    assert "Traceback" not in rest


# -- the model's own template ---------------------------------------------------------------------

OWN = "{% if messages[0].role == 'system' %}{{ raise_exception('no system here') }}{% endif %}"
OWN += "{{ bos_token }}{% for m in messages %}[{{ m.content }}]{% endfor %}"


@pytest.fixture(scope="module")
def talker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with a chat template of its own."""
    words = replace(small_vocabulary(), chat_template=OWN)
    config = replace(SHAPES["plain"], vocab_size=len(words))
    path = tmp_path_factory.mktemp("talker") / "talker.gguf"
    gguf_writer.write(path, config, random_checkpoint(config, 5).tensors, words)
    return path


def test_write_answers_in_the_models_own_way(cli: Cli, talker: Path) -> None:
    flags = ("write", "--model", talker, "--seed", "1", "-n", "8")
    answer = cli(*flags, "--chat", "once")
    assert (answer.returncode, answer.stderr) == (0, b"")
    same = cli(*flags, "--no-echo", "[once]")  # what the template makes of it
    assert answer.stdout == same.stdout
    plain = cli(*flags, "--chat", "--template", "plain", "--system", "Be kind.", "once")
    by_hand = cli(*flags, "--no-echo", "Be kind.\nYou: once\nTeller:")
    assert plain.stdout == by_hand.stdout != answer.stdout
    assert cli("chat", *flags[1:], stdin=b"once\n").stdout.strip() == answer.stdout.strip()


def test_what_a_template_refuses_is_one_line(cli: Cli, talker: Path) -> None:
    for command in (["write", "--chat", "once"], ["chat"]):
        said = b"Hello\n" if command == ["chat"] else b""
        done = cli(*command, "--model", talker, "--system", "Be kind.", stdin=said)
        assert done.returncode == 1
        assert b"no system here" in done.stderr
        assert done.stderr.count(b"\n") == 1


def test_write_wants_chat_for_what_belongs_to_it(cli: Cli) -> None:
    done = cli("write", "--system", "Be kind.", "once")
    assert done.returncode == 2
    assert b"need --chat" in done.stderr
    assert cli("write", "--chat", "--template", "frob", "once").returncode == 1
