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


@dataclass
class Progress:
    """How far a run has come."""

    step: int = 0
    epoch: int = 0
    position: int = 0  # of the next batch in its epoch
    seen: int = 0  # tokens
    seconds: float = 0.0
    books: float = 0.0  # the epoch's share of book passages


class Run:
    """A model in training, with all that its checkpoint holds."""

    def __init__(self, config: Config, recipe: Recipe, device: str, compiled: bool) -> None:
        """Create a new one, with random weights."""
        self.recipe, self.device = recipe, device
        self.model = Storyteller(config, recipe.dropout).to(device).train()
        self.optimizers = make_optimizers(self.model, recipe)
        self.progress = Progress(books=recipe.books)
        self.start = ""  # the file that the first weights are from
        self._plain = self._fast = self.model.hidden_states
        if compiled:
            self._fast = torch.compile(self._plain, dynamic=True)
        self.model.hidden_states = self._fast
        self.average = self._weights()

    def _weights(self) -> dict[str, torch.Tensor]:
        return {name: value.detach().clone() for name, value in self.model.state_dict().items()}

    def begin_with(self, path: Path, tokens: Path) -> None:
        """Begin with the weights of a GGUF file instead."""
        load_start(self.model, path, tokens)
        self.start = path.name
        self.average = self._weights()

    def restore(self, checkpoint: Path) -> None:
        """Go on from a checkpoint."""
        state = torch.load(checkpoint, map_location=self.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.average = state["average"]
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.progress = Progress(*state["progress"])
        self.start = state["start"]

    def save(self, checkpoint: Path) -> None:
        """Write the checkpoint, as a whole or not at all."""
        state = {
            "config": dataclasses.asdict(self.model.config),
            "recipe": dataclasses.asdict(self.recipe),
            "start": self.start,
            "model": self.model.state_dict(),
            "average": self.average,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "progress": dataclasses.astuple(self.progress),
        }
        torch.save(state, checkpoint.with_suffix(".new"))
        checkpoint.with_suffix(".new").replace(checkpoint)

    @property
    def share(self) -> float:
        """How much of the run lies behind, 0 to 1."""
        return done(self.progress.step, self.progress.seconds, self.recipe)

    def batches(self, tokens: Path) -> list[list[np.ndarray]]:
        """What the epoch consists of; at its beginning its share of books is chosen."""
        r, now = self.recipe, self.progress
        if now.position == 0:
            # none are left when the learning rate begins to fall
            now.books = r.books * max(0.0, 1 - self.share / (1 - r.decay))
        context = self.model.config.context
        return data.epoch_batches(
            tokens, r.seed, now.epoch, r.batch_tokens, context, r.swapped, now.books, r.joined
        )

    def learn(self, batch: list[np.ndarray]) -> tuple[float, float]:
        """One step; returns the loss in nats a token and the factor of the learning rates."""
        r, now = self.recipe, self.progress
        inputs, targets = data.pad(batch)
        x, y = torch.from_numpy(inputs).to(self.device), torch.from_numpy(targets).to(self.device)
        with torch.autocast(self.device.split(":")[0], torch.bfloat16):
            loss = self.model.loss(x, y)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        factor = learning_rate(now.step, self.share, r)
        for optimizer, lr in zip(self.optimizers, (r.matrix_lr, r.vector_lr), strict=True):
            optimizer.param_groups[0]["lr"] = lr * factor
            optimizer.step()
            optimizer.zero_grad()
        with torch.no_grad():
            for name, value in self.model.state_dict().items():
                self.average[name].lerp_(value, 1 - min(r.average, now.step / (now.step + 10)))
        now.step, now.position = now.step + 1, now.position + 1
        now.seen += int((targets >= 0).sum())
        return loss.item(), factor

    def held_out(self, documents: data.Documents, limit: int) -> float:
        """Loss on stories that are not trained on."""
        self.model.hidden_states = self._plain  # another mode would be compiled anew
        loss = held_out_loss(self.model, documents, limit)
        self.model.hidden_states = self._fast
        return loss


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
    folder, tokens = work / "run", work / "data"
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / "checkpoint.pt"
    torch.manual_seed(recipe.seed)
    run = Run(config, recipe, device, compiled)
    if checkpoint.exists():
        run.restore(checkpoint)
        print(f"going on from step {run.progress.step}", flush=True)
    elif start:
        run.begin_with(start, tokens)
    stopped: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: stopped.append(number))

    valid = data.Documents.open(tokens / "valid")
    now, smooth, batches = run.progress, 0.0, []
    saved_at, started = time.monotonic(), time.monotonic() - now.seconds
    while run.share < 1 and not stopped:
        batches = batches or run.batches(tokens)
        loss, factor = run.learn(batches[now.position])
        smooth += (loss - smooth) * (0.02 if smooth else 1.0)
        now.seconds = time.monotonic() - started
        over = run.share == 1
        if now.position == len(batches):
            now.epoch, now.position, batches = now.epoch + 1, 0, []
        if now.step % 50 == 0:
            took = f"{now.seen / now.seconds:.0f} tok/s {now.seconds / 60:.1f} min"
            print(f"{now.step} loss {smooth:.4f} {took}", flush=True)
        if now.step % eval_every == 0 or over:
            held_out = run.held_out(valid, 400 if over else 100)
            log(folder / "curve.csv", now.step, now.seen, now.seconds, factor, smooth, held_out)
            print(f"{now.step} held out {held_out:.4f} (epoch {now.epoch})", flush=True)
        if time.monotonic() - saved_at > 60 * save_minutes or over or stopped:
            run.save(checkpoint)
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
