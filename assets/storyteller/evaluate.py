"""Measure a storyteller as it ships: the GGUF file, read and sampled by Fireside itself.

    python evaluate.py                  the figures
    python evaluate.py --samples        twenty stories with their seeds, in Markdown

Bits per character: over the held-out stories, each by itself after its BOS, the sum of the token
losses (the EOS counted) / ln 2 / characters. The rest is counted on sampled stories: distinct-3
is the share of different word triples among all of them, overlap the share of sampled runs of
twelve words that stand in the training stories. Needs the corpus, but not PyTorch.
"""

from __future__ import annotations

import argparse
import json
import lzma
import math
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fireside.app.settings import Settings
from fireside.engine import Finished, Model, Sampling, Token, load

HERE = Path(__file__).resolve().parent
CORPUS = Path(os.environ.get("FIRESIDE_CORPUS", HERE.parents[2] / "shared" / "corpus"))

STAGES = (
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
)


def read_texts(path: Path) -> list[str]:
    """The texts of one .jsonl.xz file, as they stand."""
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line)["text"] for line in lines]


def bits_per_character(model: Model, texts: list[str]) -> dict[str, float]:
    """The figures of the held-out stories."""
    end = model.tokenizer.vocabulary.eos_id
    limit = model.config.context_length
    nats, count = 0.0, 0
    cache = model.executor.new_cache(limit)
    for text in texts:
        bos, *ids = [*model.encode(text), end]
        # A story longer than the context is cut into windows, each after a BOS of its own.
        for start in range(0, len(ids), limit):
            targets = np.array(ids[start : start + limit])
            inputs = np.array([bos, *targets[:-1]], np.int32)
            logits = model.executor.step(cache, inputs, 0, "all").astype(np.float64)
            top = logits.max(axis=1)
            total = np.log(np.exp(logits - top[:, None]).sum(axis=1)) + top
            nats += float((total - logits[np.arange(len(targets)), targets]).sum())
            count += len(targets)
    characters = sum(map(len, texts))
    return {
        "bits_per_character": nats / math.log(2) / characters,
        "nats_per_token": nats / count,
        "characters_per_token": characters / count,
    }


def write_story(model: Model, opening: str, sampling: Sampling, limit: int) -> tuple[str, bool]:
    """What the model adds to an opening, and whether it came to an end of its own."""
    text, ended = "", False
    for event in model.session().generate(opening, sampling, max_tokens=limit):
        if isinstance(event, Token):
            text += event.text
        elif isinstance(event, Finished):
            text, ended = text + event.text, event.reason == "end"
    return text, ended


def runs(texts: Iterable[str], length: int) -> Iterator[tuple[str, ...]]:
    """Every run of `length` words of each text, in lower case and without punctuation."""
    for text in texts:
        found = re.findall(r"[a-z0-9']+", text.lower())
        for i in range(len(found) - length + 1):
            yield tuple(found[i : i + length])


def distinct(texts: Iterable[str], length: int = 3) -> float:
    """The share of different runs of words among all of them."""
    all_runs = list(runs(texts, length))
    return len(set(all_runs)) / max(1, len(all_runs))


def overlap(texts: Iterable[str], training: Iterable[str], length: int = 12) -> float:
    """The share of sampled runs of words that stand in the training text."""
    sampled = list(runs(texts, length))
    known = set(sampled)
    standing = {run for run in runs(training, length) if run in known}
    return sum(run in standing for run in sampled) / max(1, len(sampled))


def print_samples(model: Model, sampling: dict[str, Any], openings: Path) -> None:
    """Ten stories from nothing, ten from opening lines, none chosen or changed."""
    lines = openings.read_text(encoding="utf-8").splitlines()
    for seed in range(1, 21):
        opening = "" if seed <= 10 else lines[seed - 11]
        text, ended = write_story(model, opening, Sampling(seed=seed, **sampling), 0)
        given = f"**{opening}**" if opening else ""
        print(f"\n### Seed {seed}\n\n{given}{text}{'' if ended else ' [cut]'}")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, nargs="?", default=HERE / "storyteller.gguf")
    parser.add_argument("--corpus", type=Path, default=CORPUS)
    parser.add_argument("--stories", type=int, default=200, help="how many to sample")
    parser.add_argument("--samples", action="store_true", help="print twenty stories instead")
    parser.add_argument("--openings", type=Path, default=HERE.parent / "openings.txt")
    parser.add_argument("--kernels", default="auto")
    own = Settings().sampling  # the application's
    for name in STAGES:
        default = getattr(own, name)
        parser.add_argument("--" + name.replace("_", "-"), type=type(default), default=default)
    args = parser.parse_args()
    model = load(args.model, kernels=args.kernels)
    sampling = {name: getattr(args, name) for name in STAGES}
    if args.samples:
        print_samples(model, sampling, args.openings)
        return
    held_out = read_texts(args.corpus / "tinystories-valid.jsonl.xz")
    for name, value in bits_per_character(model, held_out).items():
        print(f"{name} {value:.4f}", flush=True)
    stories = [
        write_story(model, "", Sampling(seed=seed, **sampling), 400)
        for seed in range(1, args.stories + 1)
    ]
    texts = [text for text, _ in stories]
    print(f"distinct_3 {distinct(texts):.4f}")
    print(f"ended_within_400 {sum(ended for _, ended in stories) / max(1, len(stories)):.4f}")
    training = read_texts(args.corpus / "tinystories-train.jsonl.xz")
    print(f"overlap_12 {overlap(texts, training):.4f}")


if __name__ == "__main__":
    main()
