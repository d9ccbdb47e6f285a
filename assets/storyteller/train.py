"""Train the storyteller; stop it whenever, start it again and it goes on.

    python train.py                    build/storyteller/run/ gets checkpoint.pt and curve.csv
    python train.py --tiny             the whole path in under a minute, good for nothing else

A run ends after `--steps`, or after `--minutes` if those are over first. The learning rate warms
up, stays, and falls to nothing over the last share `--decay`; until the fall has begun, a run may
be started again with another length. Hidden matrices are trained with Muon, embeddings and norms
with AdamW. Beside the weights runs their moving average, which does about as well as a short fall:
`export.py --average` ships it at any time.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import data
import export
import numpy as np
import torch
from model import Config, Storyteller, count_parameters

TINY_MODEL = Config(vocab_size=512, context=256, dim=64, layers=2, heads=2, kv_heads=1, hidden=128)


@dataclass(frozen=True)
class Recipe:
    """Everything that shapes a run besides the model's size; the command line can set each."""

    steps: int = 4500
    minutes: float = 0.0  # 0 = as long as the steps take
    warmup_steps: int = 100
    decay: float = 0.5  # the last share of the run, over which the learning rate falls to 0
    batch_tokens: int = 8192
    matrix_lr: float = 4e-3  # Muon, scaled to match AdamW's update size
    vector_lr: float = 4e-3  # embedding and norms, AdamW
    weight_decay: float = 0.05
    dropout: float = 0.0
    average: float = 0.995  # decay of the moving average of the weights
    swapped: float = 0.4  # chance that a story comes with other names
    books: float = 0.2  # share of book passages at the start, falling to 0 as the decay begins
    joined: float = 0.05  # share of stories that stand several to a row
    seed: int = 1


TINY = Recipe(steps=60, warmup_steps=5, batch_tokens=2048, average=0.9)


def done(step: int, seconds: float, r: Recipe) -> float:
    """How much of the run lies behind, 0 to 1."""
    by_time = seconds / 60 / r.minutes if r.minutes else 0.0
    return min(1.0, max(step / r.steps, by_time))


def learning_rate(step: int, share: float, r: Recipe) -> float:
    """The factor of both learning rates: up, flat, down to 0."""
    return min(1.0, (step + 1) / r.warmup_steps, (1 - share) / r.decay)


def make_optimizers(model: Storyteller, r: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices, AdamW for the rest."""
    matrices = [p for layer in model.layers for p in layer.parameters() if p.dim() == 2]
    known = set(map(id, matrices))
    others = [p for p in model.parameters() if id(p) not in known]
    return [
        torch.optim.Muon(
            matrices,
            lr=r.matrix_lr,
            weight_decay=r.weight_decay,
            adjust_lr_fn="match_rms_adamw",
        ),
        torch.optim.AdamW(others, lr=r.vector_lr, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def load_start(model: Storyteller, path: Path, tokens: Path) -> None:
    """Give the model the weights of a GGUF file of the same shape and the same vocabulary."""
    if not export.same_vocabulary(path, data.load_tokenizer(tokens)):
        raise SystemExit(f"{path} has another vocabulary than {tokens}: it cannot be the start.")
    weights = export.read_gguf(path).state_dict()
    shapes = {name: weight.shape for name, weight in weights.items()}
    if shapes != {name: weight.shape for name, weight in model.state_dict().items()}:
        raise SystemExit(f"{path} is a model of another shape: it cannot be the start.")
    model.load_state_dict(weights)


@torch.no_grad()
def held_out_loss(model: Storyteller, documents: data.Documents, limit: int = 400) -> float:
    """Mean loss in nats a token, each story on its own after its BOS, its EOS counted."""
    model.eval()
    context, device = model.config.context, next(model.parameters()).device
    rows = sorted((documents[i] for i in range(min(limit, len(documents)))), key=len)
    total, count = 0.0, 0
    for start in range(0, len(rows), 16):
        inputs, targets = data.pad([row[: context + 1] for row in rows[start : start + 16]])
        x, y = torch.from_numpy(inputs).to(device), torch.from_numpy(targets).to(device)
        with torch.autocast(device.type, torch.bfloat16):
            loss = float(model.loss(x, y))
        total += loss * int((y >= 0).sum())
        count += int((y >= 0).sum())
    model.train()
    return total / count


def train(
    config: Config,
    recipe: Recipe,
    work: Path,
    device: str = "cpu",
    compiled: bool = False,
    save_minutes: float = 3.0,
    eval_every: int = 100,
    start: Path | None = None,
) -> Path:
    """Train, or go on training, in work/run; returns the checkpoint's path.

    `start` is a GGUF file of export.py's whose weights a new run begins with, instead of random
    ones; the optimisers begin anew. A run that is there already goes on as it was.
    """
    run, tokens = work / "run", work / "data"
    run.mkdir(parents=True, exist_ok=True)
    checkpoint = run / "checkpoint.pt"
    torch.manual_seed(recipe.seed)
    model = Storyteller(config, recipe.dropout).to(device).train()
    if start:
        load_start(model, start, tokens)
    average = {k: v.detach().clone() for k, v in model.state_dict().items()}
    optimizers = make_optimizers(model, recipe)
    step, epoch, position, seen, seconds, books = 0, 0, 0, 0, 0.0, recipe.books
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        model.load_state_dict(state["model"])
        average = state["average"]
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        step, epoch, position, seen, seconds, books = state["progress"]
        print(f"going on from step {step}", flush=True)
    plain = model.hidden_states
    fast = torch.compile(plain, dynamic=True) if compiled else plain
    model.hidden_states = fast

    def save() -> None:
        state = {
            "config": dataclasses.asdict(config),
            "recipe": dataclasses.asdict(recipe),
            "start": start.name if start else "",
            "model": model.state_dict(),
            "average": average,
            "optimizers": [optimizer.state_dict() for optimizer in optimizers],
            "progress": (step, epoch, position, seen, seconds, books),
        }
        torch.save(state, checkpoint.with_suffix(".new"))
        checkpoint.with_suffix(".new").replace(checkpoint)

    valid = data.Documents.open(tokens / "valid")
    smooth, saved_at, started = 0.0, time.monotonic(), time.monotonic() - seconds
    batches: list[list[np.ndarray]] = []
    stopped: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: stopped.append(number))
    share = done(step, seconds, recipe)
    while share < 1 and not stopped:
        if position == 0:
            # none are left when the learning rate begins to fall
            books = recipe.books * max(0.0, 1 - share / (1 - recipe.decay))
        if not batches:
            batches = data.epoch_batches(
                tokens,
                recipe.seed,
                epoch,
                recipe.batch_tokens,
                config.context,
                recipe.swapped,
                books,
                recipe.joined,
            )
        inputs, targets = data.pad(batches[position])
        x, y = torch.from_numpy(inputs).to(device), torch.from_numpy(targets).to(device)
        with torch.autocast(device.split(":")[0], torch.bfloat16):
            loss = model.loss(x, y)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        factor = learning_rate(step, share, recipe)
        for optimizer, lr in zip(optimizers, (recipe.matrix_lr, recipe.vector_lr), strict=True):
            optimizer.param_groups[0]["lr"] = lr * factor
            optimizer.step()
            optimizer.zero_grad()
        with torch.no_grad():
            for name, value in model.state_dict().items():
                average[name].lerp_(value, 1 - min(recipe.average, step / (step + 10)))

        smooth += (loss.item() - smooth) * (0.02 if smooth else 1.0)
        step, position, seen = step + 1, position + 1, seen + int((targets >= 0).sum())
        seconds = time.monotonic() - started
        share = done(step, seconds, recipe)
        if position == len(batches):
            epoch, position, batches = epoch + 1, 0, []
        if step % 50 == 0:
            speed = seen / seconds
            print(f"{step} loss {smooth:.4f} {speed:.0f} tok/s {seconds / 60:.1f} min", flush=True)
        if step % eval_every == 0 or share == 1:
            model.hidden_states = plain  # another mode would be compiled anew
            held_out = held_out_loss(model, valid, 400 if share == 1 else 100)
            model.hidden_states = fast
            log(run / "curve.csv", step, seen, seconds, factor, smooth, held_out)
            print(f"{step} held out {held_out:.4f} (epoch {epoch})", flush=True)
        if time.monotonic() - saved_at > 60 * save_minutes or share == 1 or stopped:
            save()
            saved_at = time.monotonic()
    return checkpoint


def log(
    path: Path, step: int, seen: int, seconds: float, lr: float, loss: float, held: float
) -> None:
    """Add a line to the curve."""
    fresh = not path.exists()
    with path.open("a", newline="") as file:
        rows = csv.writer(file)
        if fresh:
            rows.writerow(["step", "tokens", "minutes", "lr_factor", "train_loss", "held_out_loss"])
        rows.writerow(
            [step, seen, f"{seconds / 60:.1f}", f"{lr:.3f}", f"{loss:.4f}", f"{held:.4f}"]
        )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=data.WORK)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--compile", action="store_true", help="needs a C++ compiler; faster")
    parser.add_argument("--start", type=Path, help="a GGUF file whose weights to begin with")
    for field in dataclasses.fields(Recipe):
        parser.add_argument("--" + field.name.replace("_", "-"), type=type(field.default))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    given = {f.name: getattr(args, f.name) for f in dataclasses.fields(Recipe)}
    given = {name: value for name, value in given.items() if value is not None}
    recipe = dataclasses.replace(TINY if args.tiny else Recipe(), **given)
    config = TINY_MODEL if args.tiny else Config()
    vocab_size = data.load_tokenizer(args.work / "data").get_piece_size()
    config = dataclasses.replace(config, vocab_size=vocab_size)
    print(f"{count_parameters(Storyteller(config)):,} parameters", flush=True)
    train(config, recipe, args.work, args.device, args.compile, start=args.start)


if __name__ == "__main__":
    main()
