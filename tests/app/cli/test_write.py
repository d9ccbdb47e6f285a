"""`fireside write`, driven as a process: streams, forms, flags, exit codes."""

from __future__ import annotations

import json
import math
import re
import struct
import subprocess
from pathlib import Path

import pytest

from fireside.app.cli.writing import Part, join
from fireside.engine import architectures
from fireside.engine.config import ModelConfig
from tests.app.tiny import write_tiny
from tests.command import COMMAND, Cli
from tests.shared import SHARED, needs_shared

STORIES = SHARED / "fixtures" / "stories260K"
SHORT = ("-n", "12", "--seed", "1")


def told(cli: Cli, *arguments: str, stdin: bytes = b"") -> str:
    """The text that a call wrote; it must succeed in silence."""
    done = cli("write", *arguments, stdin=stdin)
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout.decode()


def as_json(cli: Cli, *arguments: str, stdin: bytes = b"") -> dict[str, object]:
    result = json.loads(told(cli, "--json", *arguments, stdin=stdin))
    assert isinstance(result, dict)
    return result


# -- the real model -----------------------------------------------------------------------------


@needs_shared("fixtures/stories260K")
@pytest.mark.parametrize("kernels", ["auto", "numpy"])
@pytest.mark.parametrize("file", ["stories260K.bin", "stories260K_v1.bin"])
def test_greedy_story_of_llama2c_byte_for_byte(cli: Cli, kernels: str, file: str) -> None:
    done = cli(
        "write", "--model", STORIES / file, "--tokenizer", STORIES / "tok512.bin",
        "-t", "0", "-n", "200", "--kernels", kernels,
    )  # fmt: skip
    assert done.stdout == (STORIES / "expected_greedy_200.txt").read_bytes()
    assert (done.returncode, done.stderr) == (0, b"")


# -- the prompt ---------------------------------------------------------------------------------


def test_the_prompt_is_echoed_and_can_be_left_out(cli: Cli) -> None:
    with_prompt = told(cli, *SHORT, "Once upon")
    assert with_prompt.startswith("Once upon")
    assert told(cli, *SHORT, "--no-echo", "Once upon") == with_prompt.removeprefix("Once upon")


def test_file_stdin_and_argument_are_joined(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "draft.txt").write_text("Once\n", encoding="utf-8")
    joined = told(
        cli, *SHORT, "--prompt-file", str(tmp_path / "draft.txt"), "a", "time", stdin=b"upon\n"
    )
    assert joined.startswith("Once upon a time")
    assert joined == told(cli, *SHORT, "Once upon a time")


def test_join_puts_a_space_only_where_there_is_no_white_space() -> None:
    assert join(["a", "", "b"]) == "a b"
    assert join(["a\n", "b"]) == "a\nb"
    assert join(["a", " b"]) == "a b"
    assert join([]) == ""


def test_one_line_break_at_the_end_of_a_part_is_dropped() -> None:
    assert Part("x", b"a\n\n").text() == "a\n"
    assert Part("x", b"a\r\n").text() == "a"
    assert Part("x", b"a\r").text() == "a\r"
    assert Part("x", b"\xef\xbb\xbfa").text() == "a"


def test_no_prompt_at_all_begins_a_story(cli: Cli) -> None:
    assert told(cli, *SHORT)


def test_text_that_is_not_utf8_is_refused(cli: Cli, tmp_path: Path) -> None:
    bad = tmp_path / "bad.txt"
    bad.write_bytes(b"abc\xff")
    for done in (
        cli("write", stdin=b"abc\xff"),
        cli("write", "--prompt-file", bad),
        cli("write", "abc\udcff"),
    ):
        assert done.returncode == 2
        assert done.stdout == b""
        assert b"not valid UTF-8 at byte 3 (0xff)" in done.stderr


# -- forms --------------------------------------------------------------------------------------


def test_json_says_everything_once(cli: Cli) -> None:
    values = as_json(cli, *SHORT, "--threads", "2", "Once")
    assert list(values) == [
        "text", "ids", "finish_reason", "model", "quant", "kernels", "isa", "threads", "seed",
        "timings",
    ]  # fmt: skip
    assert values["text"] == told(cli, *SHORT, "Once")
    assert values["finish_reason"] == "length"
    assert values["model"] == "tiny"
    assert values["seed"] == 1
    ids, timings = values["ids"], values["timings"]
    assert isinstance(ids, list)
    assert len(ids) == 12
    assert isinstance(timings, dict)
    assert list(timings) == [
        "load_s", "prefill_tokens", "prefill_s", "prefill_tok_s", "decode_tokens", "decode_s",
        "decode_tok_s", "guessed_tokens", "accepted_tokens",
    ]  # fmt: skip
    assert timings["decode_tokens"] == 12
    assert timings["prefill_tokens"] > 1


def test_jsonl_is_an_event_a_line(cli: Cli) -> None:
    text = told(cli, *SHORT, "--jsonl", "--alternatives", "3", "Once")
    events = [json.loads(line) for line in text.splitlines()]
    assert events[0]["event"] == "start"
    assert events[0]["prompt"] == "Once"
    assert {e["event"] for e in events[1:-1]} == {"prefill", "token"}
    tokens = [e for e in events if e["event"] == "token"]
    assert [t["index"] for t in tokens] == list(range(12))
    assert all(len(t["alternatives"]) == 3 for t in tokens)
    assert all(0 < t["probability"] <= 1 for t in tokens)
    last = events[-1]
    assert last["event"] == "finished"
    assert last["ids"] == [t["id"] for t in tokens]
    whole = "Once" + "".join(t["text"] for t in tokens) + last["text"]
    assert whole == told(cli, *SHORT, "Once")


def test_stats_go_to_stderr(cli: Cli) -> None:
    done = cli("write", *SHORT, "--stats", "Once")
    assert done.stdout.decode() == told(cli, *SHORT, "Once")
    assert re.search(rb"text 12 tokens, .* tok/s", done.stderr)
    assert b"ended: length" in done.stderr


# -- flags --------------------------------------------------------------------------------------


def test_same_seed_same_story_whatever_the_threads(cli: Cli) -> None:
    stories = {
        told(cli, "-n", "60", "--seed", "5", "--threads", n, "Once") for n in ("1", "2", "4")
    }
    assert len(stories) == 1
    assert stories != {told(cli, "-n", "60", "--seed", "6", "Once")}


@pytest.mark.parametrize(
    "flags",
    [
        ["-t", "0"],
        ["-t", "3"],
        ["-k", "2"],
        ["-p", "0.1"],
        ["--min-p", "0.9"],
        ["--typical-p", "0.1"],
        ["--repetition-penalty", "8", "--repetition-window", "0"],
        ["--repetition-penalty", "0.01", "--penalty-form", "power"],
        ["--presence-penalty", "50"],
        ["--frequency-penalty", "50"],
        ["--quant", "q8"],
        ["--quant", "q4"],
    ],
    ids=" ".join,
)
def test_a_flag_changes_the_story(cli: Cli, plain_ids: list[int], flags: list[str]) -> None:
    assert as_json(cli, *flags, "-n", "80", "--seed", "1", "Once")["ids"] != plain_ids


@pytest.fixture(scope="module")
def plain_ids(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> list[int]:
    cli = Cli(tmp_path_factory.mktemp("home"), tiny_model)
    ids = as_json(cli, "-n", "80", "--seed", "1", "Once")["ids"]
    assert isinstance(ids, list)
    return ids


def test_stop_strings_may_span_tokens(cli: Cli) -> None:
    tokens = [
        json.loads(line)["text"]
        for line in told(cli, "-n", "40", "--seed", "1", "--jsonl", "Once").splitlines()
        if '"event": "token"' in line
    ]
    text = "".join(tokens)
    pairs = (tokens[i][-1:] + tokens[i + 1][:1] for i in range(10, 30))
    stop = next(p for p in pairs if len(p) == 2 and p.isprintable() and "�" not in p)
    values = as_json(cli, "-n", "40", "--seed", "1", "--stop", "absent", "--stop", stop, "Once")
    assert values["finish_reason"] == "stop"
    assert values["text"] == "Once" + text[: text.index(stop)]


def test_a_full_context_ends_the_story_or_slides(cli: Cli) -> None:
    done = cli("write", "--context", "16", "-t", "0", "--json", "Once")
    assert done.returncode == 0
    assert json.loads(done.stdout)["finish_reason"] == "context"
    assert b"note: the story ends here because the context of 16 tokens is full" in done.stderr
    done = cli("write", "--context", "16", "-t", "0", "-n", "60", "--overflow", "slide", "--json")
    assert len(json.loads(done.stdout)["ids"]) == 60
    assert b"note: the text outgrew the context" in done.stderr


# -- failures -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--frob"], 2, "No such option '--frob'"),
        (["--quant", "q5"], 2, "'q5' is not one of"),
        (["-t", "hot"], 2, "'hot' is not a valid float"),
        (["-t", "-1"], 2, "temperature is -1.0"),
        (["-n", "-1"], 2, "--max-tokens is -1"),
        (["--threads", "-1"], 2, "--threads is -1"),
        (["--threads", "100000"], 2, "--threads is 100000: it must be at most 1024"),
        (["--seed", "-1"], 2, "seed is -1"),
        (["--stop", ""], 2, "a stop string is empty"),
        (["--json", "--jsonl"], 2, "choose --json or --jsonl"),
        (["--prompt-file", "absent.txt"], 2, "absent.txt: cannot be read"),
        (["--model", "absent"], 3, "no model called 'absent'"),
        (["--model", "./absent.gguf"], 3, "absent.gguf: no such file"),
        (["--model", "/"], 3, "not a model file"),
        (["--tokenizer", "absent.bin"], 3, "absent.bin"),
        (["--context", "8", "a long long long prompt"], 4, "the context holds 8"),
        (["--context", "9999"], 4, "a context of 9999"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_mistake_is_one_line_and_an_exit_code(
    cli: Cli, arguments: list[str], code: int, message: str
) -> None:
    done = cli("write", *arguments)
    assert done.returncode == code
    assert done.stdout == b""
    lines = done.stderr.decode().splitlines()
    assert lines[0].startswith("fireside: error: ")
    assert message in lines[0]
    assert len(lines) == 1


def test_a_model_that_is_gone_is_told_with_the_file_that_names_it(cli: Cli) -> None:
    cli.config.write_text('model = "gone"\n', encoding="utf-8")
    done = cli("write", "hi", env={"FIRESIDE_MODEL": ""})
    assert done.returncode == 3
    (line,) = done.stderr.decode().splitlines()
    assert f"no model called 'gone', and no file either; the model was set by {cli.config}" in line
    assert "give another with --model, or take its line out of that file" in line
    assert cli("write", "-n", "1", "-m", "storyteller", env={"FIRESIDE_MODEL": ""}).returncode == 0


def test_a_model_beyond_all_memory_is_refused_before_it_is_read(cli: Cli, tmp_path: Path) -> None:
    write_tiny(tmp_path)  # for its tokenizer
    config = ModelConfig("llama", 16384, 65536, 64, 128, 128, 320, 512, 128)
    path = tmp_path / "giant.bin"
    header = (config.dim, config.hidden_dim, config.n_layers, 128, 128, 320, 512)
    path.write_bytes(struct.pack("<7i", *header))
    shapes = architectures.get("llama").shapes(config).values()
    weights = sum(math.prod(shape) for shape in shapes) - 320 * config.dim  # the classifier is tied
    with path.open("r+b") as file:
        file.truncate(28 + 4 * (weights + 512 * 128))  # and its tables of angles; a file of holes
    for command in (["write", "Once"], ["chat"]):
        done = cli(*command, "--model", path)
        assert done.returncode == 1
        assert done.stdout == b""
        (line,) = done.stderr.decode().splitlines()
        assert line.startswith("fireside: error: giant.bin needs about 1,")
        assert " GB are free; choose q8 or q4 weights" in line


def test_damaged_model_files_are_refused_in_one_line(cli: Cli, tmp_path: Path) -> None:
    whole = cli.model.read_bytes()
    for name, data in {
        "cut.gguf": whole[: len(whole) // 2],
        "empty.bin": b"",
        "noise.gguf": b"GGUF" + bytes(range(256)) * 4,
        "text.bin": b"Once upon a time",
    }.items():
        (tmp_path / name).write_bytes(data)
        done = cli("write", "--model", tmp_path / name)
        assert done.returncode == 3, name
        assert done.stderr.startswith(b"fireside: error: ")
        assert len(done.stderr.splitlines()) <= 2


def test_debug_shows_where(cli: Cli) -> None:
    done = cli("write", "--model", "absent", env={"FIRESIDE_DEBUG": "1"})
    assert b"Traceback" in done.stderr


# -- imports ------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["--help"], ["write", "--help"], ["write", "-n", "1"]])
def test_the_terminal_interface_is_not_imported(cli: Cli, arguments: list[str]) -> None:
    code = (
        "import sys; from fireside.app.cli import main; main(sys.argv[1:]);"
        "print(sorted({m.partition('.')[0] for m in sys.modules}), file=sys.stderr)"
    )
    done = subprocess.run(
        [COMMAND[0], "-c", code, *arguments], input=b"", capture_output=True, env=cli.env()
    )
    assert b"'textual'" not in done.stderr
    assert b"'rich'" not in done.stderr
    if "--help" in arguments:
        assert b"'numpy'" not in done.stderr
        assert b"'_cffi_backend'" not in done.stderr


# -- the model that comes with the program ------------------------------------------------------


def test_the_embedded_storyteller_writes_words(cli: Cli) -> None:
    text = told(cli, "-m", "storyteller", "-n", "40", "--seed", "1", "Once upon a time")
    assert text.startswith("Once upon a time")
    assert len(text.split()) > 20
    assert "�" not in text


# -- several stories ----------------------------------------------------------------------------


def test_count_tells_what_each_seed_tells_alone(cli: Cli) -> None:
    alone = [told(cli, "-n", "30", "--seed", str(seed), "Once upon") for seed in (7, 8, 9)]
    assert len(set(alone)) == 3
    together = told(cli, "-n", "30", "--seed", "7", "--count", "3", "Once upon")
    assert together.split("\n\f\n") == alone
    told_json = told(cli, "--json", "-n", "30", "--seed", "7", "--count", "3", "Once upon")
    objects = json.loads(told_json)
    assert [o["text"] for o in objects] == alone
    assert [o["seed"] for o in objects] == [7, 8, 9]
    assert all(len(o["ids"]) <= 30 and o["finish_reason"] for o in objects)


def test_count_says_its_speed_and_what_does_not_go_with_it(cli: Cli) -> None:
    done = cli("write", "--stats", "--no-echo", *SHORT, "--count", "2", "Once")
    assert done.returncode == 0
    assert re.match(rb"2 stories: \d+ tokens, .* tok/s together\n$", done.stderr)
    for wrong in (("--count", "0"), ("--count", "65"), ("--count", "2", "--jsonl")):
        done = cli("write", *SHORT, *wrong, "Once")
        assert (done.returncode, done.stdout) == (2, b"")
        assert b"--count" in done.stderr


def test_the_last_seed_is_followed_by_the_first(cli: Cli) -> None:
    last = 2**64 - 1
    both = told(cli, "-n", "9", "--seed", str(last), "--count", "2", "Once").split("\n\f\n")
    assert both == [told(cli, "-n", "9", "--seed", str(s), "Once") for s in (last, 0)]
