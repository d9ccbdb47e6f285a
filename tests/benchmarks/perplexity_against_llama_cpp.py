"""The same model, the same tokens: Fireside's perplexity beside llama.cpp's.

    python tests/benchmarks/perplexity_against_llama_cpp.py [MODEL ...] --peer-python PYTHON

Each model is written as a GGUF file of F32, Q8_0 and Q4_0 (or of --types), and both programs read
that file as it is, on the same ids: stories of the held-out corpus (../shared), each after a BOS
and cut at --length. A difference above --most percent is a failure.
"""

from __future__ import annotations

import argparse
import json
import lzma
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from fireside import assets
from fireside.engine import Model, load, open_checkpoint
from fireside.engine.checkpoints import gguf_writer

CORPUS = Path("../shared/corpus/tinystories-valid.jsonl.xz")
BLOCKS = ("F32", "Q8_0", "Q4_0")

# The peer's side: needs llama-cpp-python and NumPy, not Fireside.
PEER = """
import json, sys
import numpy as np
import llama_cpp
case = json.load(sys.stdin)
longest = max(map(len, case["texts"]))
model = llama_cpp.Llama(case["path"], n_ctx=longest, n_batch=longest, n_ubatch=longest,
                        n_gpu_layers=0, n_threads=case["threads"],
                        n_threads_batch=case["threads"], logits_all=True, verbose=False)
total = 0.0
for ids in case["texts"]:
    model.reset()
    model.eval(ids)
    logits = np.array(model.scores[: len(ids) - 1], np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    chosen = logits[np.arange(len(ids) - 1), ids[1:]]
    total -= float((chosen - np.log(np.exp(logits).sum(axis=1))).sum())
print(json.dumps({"nats": total, "version": llama_cpp.__version__}))
"""


def nats(logits: NDArray[np.float32], ids: list[int]) -> float:
    """Minus the log likelihood of ids[1:] under logits [len(ids), vocabulary]."""
    rows = logits[:-1].astype(np.float64)
    rows -= rows.max(axis=1, keepdims=True)
    chosen = rows[np.arange(len(rows)), ids[1:]]
    return -float((chosen - np.log(np.exp(rows).sum(axis=1))).sum())


def ours(path: Path, texts: list[list[int]], threads: int) -> float:
    """Nats of all texts as Fireside computes them."""
    executor = load(path, threads=threads).executor
    cache = executor.new_cache(max(map(len, texts)))
    return sum(nats(executor.step(cache, np.array(ids, np.int32), 0, "all"), ids) for ids in texts)


def theirs(path: Path, texts: list[list[int]], threads: int, python: str) -> tuple[float, str]:
    """(nats of all texts as llama.cpp computes them, its version)."""
    case = {"path": str(path), "texts": texts, "threads": threads}
    done = subprocess.run(
        [python, "-c", PEER], input=json.dumps(case), capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"the peer ended with {done.returncode}: {done.stderr.strip()[-300:]}")
    answer = json.loads(done.stdout.splitlines()[-1])
    return answer["nats"], answer["version"]


def texts_of(loaded: Model, corpus: Path, stories: int, length: int) -> list[list[int]]:
    """The first stories of the corpus as ids with a BOS, cut at `length`."""
    with lzma.open(corpus, "rt", encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line, _ in zip(lines, range(stories), strict=False)]
    longest = min(length, loaded.config.context_length)
    return [ids for text in texts if len(ids := loaded.encode(text)[:longest]) > 1]


def main() -> int:
    """Compare and print; the exit code is 1 where they differ too much."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--tokenizer", type=Path, help="of models that carry none")
    parser.add_argument("--corpus", type=Path, default=CORPUS)
    parser.add_argument("--types", default=",".join(BLOCKS), help="of weights, parted by commas")
    parser.add_argument("--stories", type=int, default=100)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--most", type=float, default=0.5, help="percent")
    options = parser.parse_args()
    worst = 0.0
    print("| model | weights | tokens | Fireside | llama.cpp | difference |")
    print("|---|---|---|---|---|---|")
    for model in options.models or [assets.storyteller()]:
        loaded = load(model, tokenizer=options.tokenizer)
        checkpoint = replace(open_checkpoint(model), vocabulary=loaded.tokenizer.vocabulary)
        texts = texts_of(loaded, options.corpus, options.stories, options.length)
        count = sum(len(ids) - 1 for ids in texts)
        for block in options.types.split(","):
            with TemporaryDirectory() as folder:
                path = Path(folder) / f"{model.stem}.gguf"
                gguf_writer.write_checkpoint(path, checkpoint, block)
                mine = math.exp(ours(path, texts, options.threads) / count)
                nats_, version = theirs(path, texts, options.threads, options.peer_python)
            peers = math.exp(nats_ / count)
            percent = 100 * (mine / peers - 1)
            worst = max(worst, abs(percent))
            cells = (model.stem, block, f"{count:,}", f"{mine:.4f}", f"{peers:.4f}")
            print(f"| {' | '.join(cells)} | {percent:+.3f}% |", flush=True)
    print(f"llama-cpp-python {version}; the largest difference is {worst:.3f}%", file=sys.stderr)
    return int(worst > options.most)


if __name__ == "__main__":
    sys.exit(main())
