"""The embedded storyteller: the file that ships, and the way there on a tiny scale."""

from __future__ import annotations

import csv
import importlib.util
import json
import lzma
import os
import random
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from fireside import assets
from fireside.engine import Finished, Sampling, Token, load

RECIPE = Path(__file__).resolve().parents[2] / "assets" / "storyteller"
NEEDED = ("torch", "sentencepiece", "gguf")
PEER = os.environ.get("FIRESIDE_PEER_PYTHON", "")  # a Python that has llama-cpp-python
PEER_CODE = """
import itertools, json, sys
import llama_cpp
model = llama_cpp.Llama(sys.argv[1], n_ctx=256, n_threads=1, verbose=False)
tokens = model.generate(json.loads(sys.argv[2]), temp=0.0, repeat_penalty=1.0)
print(json.dumps(list(itertools.islice(tokens, 20))))
"""
MISSING = [name for name in NEEDED if importlib.util.find_spec(name) is None]


def test_shipped_file_is_small_and_a_gguf() -> None:
    path = assets.storyteller()
    assert path.stat().st_size <= 12_000_000
    magic, version, tensors, fields = struct.unpack("<4sIQQ", path.read_bytes()[:24])
    assert (magic, version) == (b"GGUF", 3)
    assert tensors > 10
    assert fields > 10


def test_shipped_file_tells_a_story_and_ends_it() -> None:
    model = load(assets.storyteller(), kernels="numpy")
    events = list(model.session().generate("Once upon a time", Sampling(temperature=0.0)))
    text = "".join(event.text for event in events if isinstance(event, Token))
    assert text.startswith(",") or text.startswith(" there")
    assert len(text) > 200
    assert text.count(".") > 3
    assert isinstance(events[-1], Finished)
    assert events[-1].reason == "end"


def test_shipped_opening_lines() -> None:
    lines = assets.openings()
    assert len(lines) == len(set(lines)) == 20
    assert all(20 < len(line) < 80 for line in lines)


def test_shipped_stories_have_a_title_and_a_few_paragraphs() -> None:
    stories = assets.stories()
    assert len({story.title for story in stories}) == len(stories) >= 4
    for story in stories:
        assert 5 < len(story.title) < 40
        assert 150 <= len(story.text.split()) <= 350
        assert story.text.count("\n\n") >= 4
        assert story.text == story.text.strip()


def invent_corpus(folder: Path) -> None:
    """Stories after a pattern, in the corpus's own format."""
    rng = random.Random(5)

    def story() -> str:
        name = rng.choice(["Lily", "Tom", "Sara", "Ben"])
        animal = rng.choice(["cat", "dog", "owl", "fox", "hen"])
        thing = rng.choice(["ball", "kite", "boat", "drum", "cake"])
        return (
            f"Once upon a time, {name} met a {animal}.\nThe {animal} had lost its {thing}. "
            f'"I will help you," said {name}.\n{name} and the {animal} looked for the {thing} '
            f"until they found it. The {animal} was happy."
        )

    for name, count in (
        ("tinystories-train", 400),
        ("tinystories-valid", 20),
        ("nursery-books", 40),
    ):
        with lzma.open(folder / f"{name}.jsonl.xz", "wt", encoding="utf-8") as file:
            file.writelines(json.dumps({"text": story()}) + "\n" for _ in range(count))


def run(script: str, *arguments: str | Path) -> str:
    command = [sys.executable, str(RECIPE / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(bool(MISSING), reason=f"training needs {', '.join(MISSING)}")
def test_tiny_recipe_from_corpus_to_gguf(tmp_path: Path) -> None:
    corpus, work, out = tmp_path / "corpus", tmp_path / "work", tmp_path / "tiny.gguf"
    corpus.mkdir()
    invent_corpus(corpus)
    run("data.py", "--corpus", corpus, "--work", work, "--vocab-size", "400", "--copies", "2")
    copies = {path.read_bytes() for path in (work / "data").glob("s*.bin")}
    assert len(copies) == 3  # the stories, and twice with other names

    # Broken off half-way and taken up again, it ends where it should.
    run("train.py", "--tiny", "--work", work, "--steps", "40")
    assert "going on from step 40" in run("train.py", "--tiny", "--work", work)
    curve = list(csv.DictReader((work / "run" / "curve.csv").open(encoding="utf-8")))
    assert [row["step"] for row in curve] == ["40", "60"]
    assert float(curve[-1]["held_out_loss"]) < 4.0

    run("export.py", "--work", work, "--out", out)
    model = load(out, kernels="numpy")
    start = "Once upon a time, Lily met a"
    events = list(model.session().generate(start, Sampling(temperature=0.0), max_tokens=20))
    told = "".join(event.text for event in events if isinstance(event, Token))

    # The same ids and the same words as sentencepiece and PyTorch have.
    compare = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import data, export, json, pathlib\n"
        "model = export.read_gguf(pathlib.Path(sys.argv[2]))\n"
        "tokenizer = data.load_tokenizer(pathlib.Path(sys.argv[3]) / 'data')\n"
        "ids = [data.BOS, *tokenizer.encode(sys.argv[4])]\n"
        "ours = export.greedy(model, ids, 20)\n"
        "print(json.dumps([ids, ours, tokenizer.decode(ids + ours)]))\n"
    )
    command = [sys.executable, "-c", compare, str(RECIPE), str(out), str(work), start]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=True)
    ids, ours, text = json.loads(done.stdout)
    assert model.encode(start) == ids
    assert start + told == text

    if PEER:  # llama.cpp, too, goes on with the same ids
        command = [PEER, "-c", PEER_CODE, str(out), json.dumps(ids)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=True)
        assert json.loads(done.stdout)[: len(ours)] == ours

    # Another run begins where this one ended, but not with the pieces of another vocabulary.
    (work / "run").rename(work / "first")
    run("train.py", "--tiny", "--work", work, "--steps", "1", "--start", out)
    again = list(csv.DictReader((work / "run" / "curve.csv").open(encoding="utf-8")))
    assert float(again[0]["held_out_loss"]) < float(curve[-1]["held_out_loss"]) + 0.1
    (work / "run").rename(work / "second")
    command = [sys.executable, str(RECIPE / "train.py"), "--tiny", "--work", str(work)]
    command += ["--start", str(assets.storyteller())]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert refused.returncode == 1
    assert "another vocabulary" in refused.stderr

    figures = run("evaluate.py", out, "--corpus", corpus, "--stories", "3").splitlines()
    assert [line.split()[0] for line in figures] == [
        "bits_per_character",
        "nats_per_token",
        "characters_per_token",
        "distinct_3",
        "ended_within_400",
        "overlap_12",
    ]
