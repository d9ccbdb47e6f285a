"""Several continuations of one text at once: their tokens share every reading of the weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fireside.engine.arrays import np
from fireside.engine.errors import ContextOverflowError, FiresideError
from fireside.engine.events import Event
from fireside.engine.executors import Aborted
from fireside.engine.records import record
from fireside.engine.samplers import Sampling, chain_for
from fireside.engine.session import Overflow, Run, Session
from fireside.engine.stop import StopMatcher


@record
class Tagged:
    """An event of the story that the seed at `index` tells."""

    index: int
    event: Event


def generate_many(
    session: Session,
    prompt: str | Sequence[int],
    seeds: Sequence[int],
    sampling: Sampling | None = None,
    *,
    max_tokens: int = 0,
    stop: Sequence[str] = (),
    overflow: Overflow = "stop",
) -> Iterator[Tagged]:
    """As `Session.generate`, once for each of `seeds` and all in step.

    Each story is the one that its seed tells alone. The prompt is computed once, its progress told
    for index 0, and forks of `session` share it; nothing is guessed ahead. `session` goes on with
    the story of the first seed. `session.abort` ends them all, each with its Finished.
    """
    if not seeds:
        raise FiresideError("there is no seed to tell a story with")
    ids = session.model.encode(prompt) if isinstance(prompt, str) else list(prompt)
    if overflow == "stop" and len(ids) > session.context:
        raise ContextOverflowError(
            f"the prompt is {len(ids)} tokens long, the context holds {session.context}",
            "shorten it, choose a larger --context or let it slide",
        )
    session._abort.clear()
    session._running = True
    runs: list[Run] = []
    try:
        for index, seed in enumerate(seeds):
            teller = session.fork() if index else session
            teller._abort = session._abort  # who ends one ends all
            chain = chain_for(sampling or Sampling(), seed, session.model.executor.name)
            run = Run(teller, list(ids), chain, StopMatcher(stop), max_tokens, 0, overflow)
            runs.append(run)
            try:
                for event in run.read():
                    if not index:
                        yield Tagged(0, event)
            except Aborted:
                pass  # the first draw finds that out too
        yield from _in_step(session, runs)
    finally:
        session._running = False


def _in_step(session: Session, runs: Sequence[Run]) -> Iterator[Tagged]:
    """Draw a token of each, compute all of them, until every story has ended."""
    going = dict(enumerate(runs))
    while going:
        waiting: list[Run] = []
        for index, run in list(going.items()):
            token, reason = run.draw()
            if token:
                yield Tagged(index, token)
            if reason:
                del going[index]
                yield Tagged(index, run.finish(reason))
            elif len(run.session.ids) < session.context:
                waiting.append(run)
            else:
                yield from _slide(index, run)
        if waiting:
            _step(session, waiting)


def _slide(index: int, run: Run) -> Iterator[Tagged]:
    """A full window is left for the next one, by itself: the stories are not all as long."""
    try:
        for event in run._compute():
            yield Tagged(index, event)
    except Aborted:
        pass  # as above


def _step(session: Session, runs: Sequence[Run]) -> None:
    """One token further with each; an abort leaves them where they are."""
    parts = [
        (run.session._cache, np.array(run.text[-1:], np.int32), len(run.session.ids))
        for run in runs
    ]
    while not session._abort.is_set():
        try:
            logits = session.model.executor.step_batch(parts)
        except Aborted:
            continue  # ours: the loop ends; somebody else's: again
        for run, row in zip(runs, logits, strict=True):
            run.session._accept(run.text[-1], row)
        return
