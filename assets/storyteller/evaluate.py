"""Measure an exported storyteller, and let it write samples.

    python evaluate.py storyteller.gguf            the figures
    python evaluate.py storyteller.gguf --samples  and twenty stories, with their seeds

Bits per character: over the held-out stories, each by itself after its BOS, the sum of the token
losses (the EOS counted) / ln 2 / characters. The rest is counted on sampled stories: distinct-3
is the share of different word triples among all of them, overlap the share of sampled runs of
twelve words that stand in the training stories.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import data
import numpy as np
import torch
from export import read_gguf
from model import Storyteller, count_parameters


@dataclass(frozen=True)
class Sampling:
    """How the measured stories are sampled; nothing else is in the chain."""

    temperature: float = 0.8
    top_p: float = 0.95


@torch.no_grad()
def bits_per_character(model: Storyteller, work: Path) -> dict[str, float]:
    """The three figures of the held-out stories."""
    documents = data.Documents.open(work / "data" / "valid")
    characters = json.loads((work / "data" / "counts.json").read_text())["characters"]["valid"]
    # A story longer than the context is cut into windows, each after a BOS of its own.
    limit = model.config.context - 1
    rows = []
    for i in range(len(documents)):
        ids = documents[i]
        rows += [np.append(ids[:1], ids[k : k + limit]) for k in range(1, len(ids), limit)]
    rows.sort(key=len)
    nats, count = 0.0, 0
    for start in range(0, len(rows), 8):
        inputs, targets = map(torch.from_numpy, data.pad(rows[start : start + 8]))
        here = int((targets >= 0).sum())
        nats += float(model.loss(inputs, targets)) * here
        count += here
    return {
        "bits_per_character": nats / math.log(2) / characters,
        "nats_per_token": nats / count,
        "characters_per_token": characters / count,
    }


@torch.no_grad()
def write_stories(
    model: Storyteller,
    start: list[int],
    count: int,
    seed: int,
    limit: int = 400,
    sampling: Sampling = Sampling(),
) -> list[list[int]]:
    """Sample `count` continuations of the same ids side by side; each ends at its EOS or limit."""
    generator = torch.Generator().manual_seed(seed)
    caches: list[list[torch.Tensor]] = [[] for _ in model.layers]
    tokens = torch.tensor([start] * count)
    stories: list[list[int]] = [[] for _ in range(count)]
    for _ in range(limit):
        logits = model.next_logits(tokens, caches) / sampling.temperature
        chances, order = logits.softmax(-1).sort(descending=True)
        chances[chances.cumsum(-1) - chances >= sampling.top_p] = 0
        tokens = order.gather(1, torch.multinomial(chances, 1, generator=generator))
        for story, token in zip(stories, tokens[:, 0].tolist(), strict=True):
            if not story or story[-1] != data.EOS:
                story.append(token)
        if all(story[-1] == data.EOS for story in stories):
            break
    return stories


def words(text: str) -> list[str]:
    """Lower-case words without punctuation."""
    return re.findall(r"[a-z0-9']+", text.lower())


def runs(texts: Iterable[str], length: int) -> Iterable[tuple[str, ...]]:
    """Every run of `length` words of each text."""
    for text in texts:
        found = words(text)
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


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    here = Path(__file__)
    parser.add_argument("model", type=Path, nargs="?", default=here.with_name("storyteller.gguf"))
    parser.add_argument("--work", type=Path, default=data.WORK)
    parser.add_argument("--corpus", type=Path, default=data.CORPUS)
    parser.add_argument("--stories", type=int, default=200, help="how many to sample")
    parser.add_argument("--samples", action="store_true", help="print twenty stories")
    parser.add_argument("--openings", type=Path, default=here.parents[1] / "openings.txt")
    parser.add_argument("--temperature", type=float, default=Sampling.temperature)
    parser.add_argument("--top-p", type=float, default=Sampling.top_p)
    args = parser.parse_args()
    sampling = Sampling(args.temperature, args.top_p)
    model = read_gguf(args.model)
    tokenizer = data.load_tokenizer(args.work / "data")
    print(f"{count_parameters(model):,} parameters, {args.model.stat().st_size:,} bytes")
    for name, value in bits_per_character(model, args.work).items():
        print(f"{name} {value:.4f}", flush=True)
    if args.stories:
        ids = write_stories(model, [data.BOS], args.stories, seed=1, sampling=sampling)
        texts = [tokenizer.decode(story) for story in ids]
        training = data.read_texts(args.corpus / "tinystories-train.jsonl.xz")
        print(f"distinct_3 {distinct(texts):.4f}")
        print(f"ended_within_400 {sum(s[-1] == data.EOS for s in ids) / len(ids):.4f}")
        print(f"overlap_12 {overlap(texts, training):.4f}", flush=True)
    if args.samples:
        openings = args.openings.read_text(encoding="utf-8").splitlines()[:10]
        for seed in range(1, 21):
            # Ten stories from nothing, ten from an opening line of ours.
            opening = "" if seed <= 10 else openings[seed - 11]
            start = [data.BOS, *tokenizer.encode(opening)]
            story = write_stories(model, start, 1, seed, 1000, sampling)[0]
            end = "" if story[-1] == data.EOS else " [cut]"
            text = tokenizer.decode(start + story)
            given = f"**{opening}**" if opening else ""
            print(f"\n### Seed {seed}\n\n{given}{text[len(opening) :]}{end}")


if __name__ == "__main__":
    main()
