"""A Session: one timeline of text over a loaded model, and `generate`, which continues it."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import cached_property

from fireside.engine.arrays import np
from fireside.engine.bursts import Told, burst_for
from fireside.engine.errors import ContextOverflowError, FiresideError
from fireside.engine.events import (
    Alternative,
    ContextSlid,
    Event,
    Finished,
    FinishReason,
    PrefillProgress,
    Statistics,
    Token,
)
from fireside.engine.executors import Aborted, Rows
from fireside.engine.hints import TYPE_CHECKING, Literal, TypeVar
from fireside.engine.samplers import Chain, Choice, Sampling, chain_for
from fireside.engine.samplers.chain import LogitsRow
from fireside.engine.speculation import Speculation, drafts
from fireside.engine.stop import StopMatcher
from fireside.engine.tokenizers.detokenizer import Detokenizer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fireside.engine.model import Model
    from fireside.engine.speculation.speculator import Speculator

T = TypeVar("T")
Overflow = Literal["slide", "stop"]
CHUNK = 256  # tokens of one prefill step: small enough that progress is prompt


class Session:
    """One mutable timeline. Not thread-safe, but for `abort`, which any thread may call.

    `ids` is what the cache holds. Only what differs from it is computed: to continue, edit, undo,
    regenerate or switch a branch is to call `sync` (or `generate`) with another text.
    speculation: how tokens are guessed ahead, see there, and draft: a small model that guesses, or
    None; they change how long a story takes, and nothing else.
    """

    def __init__(
        self,
        model: Model,
        context: int = 0,
        speculation: Speculation = "auto",
        draft: Model | None = None,
    ) -> None:
        self.model = model
        self.draft = draft
        self.context = context or model.config.context_length
        if not 8 <= self.context <= model.config.context_length:
            raise ContextOverflowError(
                f"a context of {self.context} tokens is not possible with {model.name}",
                f"choose 8 to {model.config.context_length}",
            )
        self.speculation = speculation
        self.ids: list[int] = []
        self.reused = 0  # tokens that the last reading found in the cache
        self._cache = model.executor.new_cache(self.context)
        self._logits: LogitsRow | None = None  # those after self.ids
        self._abort = threading.Event()
        self._running = False
        if draft:
            from fireside.engine.speculation.draft import check

            check(model, draft)

    def renewed(self) -> Session:
        """An empty session like this one, which trusts nothing that this one knows."""
        return Session(self.model, self.context, self.speculation, self.draft)

    def fork(self) -> Session:
        """A session that holds what this one holds, and goes its own way from there."""
        other = self.renewed()
        other._cache = self.model.executor.fork(self._cache)
        other.ids, other._logits = list(self.ids), self._logits
        return other

    @cached_property
    def speculator(self) -> Speculator | None:
        """Who guesses, if somebody does."""
        # Guessing pays where a step of several rows costs little more than one of a single row.
        if self.speculation == "off" or self.model.executor.name != "native":
            return None
        from fireside.engine.speculation.draft import Draft
        from fireside.engine.speculation.speculator import Speculator

        draft = None
        if self.draft and drafts(self.speculation):
            context = min(self.context, self.draft.config.context_length)
            session = Session(self.draft, context, "off")
            session._abort = self._abort  # who ends the one ends the other
            draft = Draft(session, self.model.end_ids)
        return Speculator(self.speculation != "draft", draft)

    # -- the timeline ---------------------------------------------------------------------------

    def sync(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Make the cache hold `ids` (1 to `context` of them); the logits [vocab] after the last."""
        for _ in self._prefill(list(ids)):
            pass
        return self.logits

    @property
    def logits(self) -> NDArray[np.float32]:
        """Those [vocab] after the last of `ids`, which must have been computed."""
        assert self._logits is not None
        return np.asarray(self._logits)

    def window(self, ids: Sequence[int]) -> tuple[list[int], int]:
        """(the ids that are computed for a text, how many were left out of it).

        A text that fits is itself. A longer one keeps its first eighth of a window and slides the
        rest in hops of a quarter window, so that the cache stays of use between hops. What is
        left out depends on the length of the text alone.
        """
        excess = len(ids) - self.context
        if excess <= 0:
            return list(ids), 0
        kept, hop = self.context // 8, self.context // 4
        dropped = -(-excess // hop) * hop
        return [*ids[:kept], *ids[kept + dropped :]], dropped

    def _prefill(
        self, ids: list[int], finish: Callable[[int], LogitsRow] | None = None
    ) -> Iterator[PrefillProgress]:
        """Compute what the cache lacks, in chunks; sets `ids` and `_logits`.

        finish(n), where it is given, computes the last chunk, of n ids, instead of a plain step.
        """
        if not 1 <= len(ids) <= self.context:
            raise ContextOverflowError(
                f"{len(ids)} tokens do not fit the context of {self.context}",
                "shorten the text or choose a larger --context",
            )
        vocab_size = self.model.config.vocab_size
        reused = common_prefix(self.ids, ids)
        if not all(0 <= i < vocab_size for i in ids[reused:]):
            raise FiresideError(f"a token id is outside the vocabulary of {vocab_size}")
        if reused == len(ids) and (reused < len(self.ids) or self._logits is None):
            reused -= 1  # the last token again, for its logits
        del self.ids[reused:]
        self.reused = reused
        yield PrefillProgress(reused, len(ids), reused)
        while len(self.ids) < len(ids):
            start = len(self.ids)
            chunk = ids[start : start + CHUNK]
            last = start + len(chunk) == len(ids)
            if last and finish:
                logits: LogitsRow = finish(len(chunk))
            elif last:
                logits = self._step(chunk, start, "last")[0]
            else:
                self._step(chunk, start, "none")
            self.ids += chunk
            self._logits = logits if last else None
            yield PrefillProgress(len(self.ids), len(ids), reused)

    def push(self, token: int) -> NDArray[np.float32]:
        """Compute one more token, for which there must be room; the logits [vocab] after it."""
        self._push(token)
        return self.logits

    def _push(self, token: int, guess: Sequence[int] = ()) -> Sequence[LogitsRow]:
        """Compute one more token, for which there must be room, and behind it what is guessed.

        The timeline grows by `token` alone; returned are the logits after each guessed token,
        which hold as long as those before it turn out right (see `_accept`).
        """
        logits = self._step([token, *guess], len(self.ids), "all" if guess else "last")
        self._accept(token, logits[0])
        return logits[1:]

    def _accept(self, token: int, logits: LogitsRow | None) -> None:
        """The timeline grows by a token that the cache holds already; None: logits not kept."""
        self.ids.append(token)
        self._logits = logits

    def _step(self, chunk: list[int], start: int, rows: Rows) -> Sequence[LogitsRow]:
        executor, cache = self.model.executor, self._cache
        return self._insist(lambda: executor.step_rows(cache, chunk, start, rows))

    def _insist(self, step: Callable[[], T]) -> T:
        """What `step` returns; it is a step of the executor on this session's cache."""
        self._logits = None
        while True:
            if self._abort.is_set():
                raise Aborted
            try:
                return step()
            except Aborted:
                if self._abort.is_set():
                    raise
                # somebody else's abort, or one that came after its generation had ended: again

    # -- generation -----------------------------------------------------------------------------

    def generate(
        self,
        prompt: str | Sequence[int],
        sampling: Sampling | None = None,
        *,
        max_tokens: int = 0,
        stop: Sequence[str] = (),
        alternatives: int = 0,
        overflow: Overflow = "stop",
    ) -> Iterator[Event]:
        """Continue `prompt` (text, or ids with their BOS) and yield events; the last is Finished.

        max_tokens 0 = until the model ends the text or the context is full. overflow "stop": a
        full context ends it (reason "context") and a prompt that does not fit is a
        ContextOverflowError; "slide": see `window`, a ContextSlid event tells of every hop.
        Close the iterator, or call `abort`, to stop early.
        """
        sampling = sampling or Sampling()
        seed = int.from_bytes(os.urandom(4)) if sampling.seed is None else sampling.seed
        ids = self.model.encode(prompt) if isinstance(prompt, str) else list(prompt)
        if overflow == "stop" and len(ids) > self.context:
            raise ContextOverflowError(
                f"the prompt is {len(ids)} tokens long, the context holds {self.context}",
                "shorten it, choose a larger --context or let it slide",
            )
        matcher = StopMatcher(stop)
        chain = chain_for(sampling, seed, self.model.executor.name)
        run = Run(self, ids, chain, matcher, max_tokens, alternatives, overflow)
        self._abort.clear()
        self._running = True
        try:
            yield from run.events()
        finally:
            self._running = False

    def abort(self) -> None:
        """End the generation that runs now, soon; it still yields its Finished event."""
        self._abort.set()
        if self._running:
            self.model.executor.abort()


class Run:
    """One call of generate: its text so far and its counts."""

    def __init__(
        self,
        session: Session,
        ids: list[int],
        chain: Chain,
        matcher: StopMatcher,
        max_tokens: int,
        alternatives: int,
        overflow: Overflow,
    ) -> None:
        model = session.model
        self.session = session
        self.text = ids  # the whole text, prompt and all, windowed or not
        self.prompt_length = len(ids)
        self.chain = chain
        self.matcher = matcher
        self.max_tokens = max_tokens
        self.alternatives = alternatives
        self.overflow = overflow
        self.detokenizer = Detokenizer(model.tokenizer, ids)
        self.burst = None if alternatives else burst_for(model.executor, chain, model.end_ids)
        self.drawn: deque[Choice] = deque()  # by the last burst; the cache holds all but the last
        self.after: LogitsRow | None = None  # those of which the last was drawn
        self.ahead: deque[tuple[int, LogitsRow]] = deque()  # guessed, with logits after
        self.guessed = self.accepted = 0
        self.dropped = 0
        self.prefill_tokens = self.reused_tokens = 0
        self.prefill_s = self.decode_s = 0.0
        self.started = self.read_at = time.perf_counter()

    def events(self) -> Iterator[Event]:
        """Everything, the Finished event last."""
        reason: FinishReason = "aborted"
        try:
            yield from self.read()
            reason = yield from self._decode()
        except Aborted:
            pass
        yield self.finish(reason)

    def read(self) -> Iterator[Event]:
        """Bring the session to the prompt. Raises Aborted."""
        try:
            yield from self._compute()
        finally:
            self.read_at = time.perf_counter()

    def finish(self, reason: FinishReason) -> Finished:
        """The last event: what was held back, and the counts."""
        self.prefill_s = self.read_at - self.started
        self.decode_s = time.perf_counter() - self.read_at
        tail = "" if reason == "stop" else self._flush()
        return Finished(reason, tail, tuple(self.generated), self.chain.seed, self._statistics())

    @property
    def generated(self) -> list[int]:
        """The ids behind the prompt."""
        return self.text[self.prompt_length :]

    def _compute(self) -> Iterator[Event]:
        """Bring the session to the text so far; prefill counts are those of the first call."""
        window, dropped = self.session.window(self.text)
        first = not self.generated
        if dropped != self.dropped:
            self.dropped = dropped
            yield ContextSlid(self.session.context // 8, dropped)
        finish = self._read_and_draw if self.burst and not dropped else None
        for progress in self.session._prefill(window, finish):
            if first:
                self.reused_tokens = progress.reused
                self.prefill_tokens = progress.done - progress.reused
            if first or progress.total - progress.reused > 1:
                yield progress

    def _decode(self) -> Generator[Event, None, FinishReason]:
        """Draw, emit, compute, until something ends it; the generator's value says what."""
        guessing = False
        while True:
            token, reason = self.draw()
            if token:
                yield token
            if reason or not token:
                return reason or "aborted"
            if speculator := self.session.speculator:
                if not guessing:  # not before the first token, which should be there soon
                    speculator.begin(self.text[:-1], self.chain)
                    guessing = True
                speculator.saw(token.id)
            if len(self.session.ids) < self.session.context:
                left = self.max_tokens - token.index - 1 if self.max_tokens else CHUNK
                self._advance(token.id, left)
            else:
                yield from self._compute()

    def draw(self) -> tuple[Token | None, FinishReason | None]:
        """(the next token, what ends the text with it); a text may end without another token."""
        if self.session._abort.is_set():
            return None, "aborted"
        if self.overflow == "stop" and len(self.text) >= self.session.context:
            return None, "context"
        choice = self._choose()
        if choice.id in self.session.model.end_ids:
            return None, "end"
        index = len(self.text) - self.prompt_length
        self.text.append(choice.id)
        text, stopped = self.matcher.push(self.detokenizer.push(choice.id))
        token = Token(choice.id, text, index, choice.probability, self._alternatives(choice))
        if stopped:
            return token, "stop"
        return token, "length" if index + 1 == self.max_tokens else None

    def _advance(self, token: int, wanted: int) -> None:
        """Bring the session past `token`, up to `wanted` more are to come behind it."""
        session, speculator = self.session, self.session.speculator
        if self.drawn:  # by the burst that computed this one as well
            session._accept(token, self.after if len(self.drawn) == 1 else None)
            return
        if self.ahead and self.ahead[0][0] == token:
            self.accepted += 1
            session._accept(*self.ahead.popleft())
            return
        self.ahead.clear()
        room = min(wanted, session.context - len(session.ids))
        guess = speculator.guess(self.text, room - 1) if speculator else []
        if not guess and self._tell(token, room):
            return
        started = time.perf_counter()
        self.ahead.extend(zip(guess, session._push(token, guess), strict=True))
        if speculator:
            speculator.tell(len(guess), time.perf_counter() - started)
        self.guessed += len(guess)

    def _read_and_draw(self, fresh: int) -> LogitsRow:
        """Compute the last `fresh` ids of the text and draw the one behind, in one call into C."""
        told = self._burst(len(self.session.ids), 1, fresh)
        return told.logits

    def _tell(self, token: int, room: int) -> bool:
        """Bring the session past `token` and draw up to `room` more, where C can do it in one."""
        session, speculator = self.session, self.session.speculator
        if self.burst is None:
            return False
        count = 1 if speculator and speculator.measuring else room
        told = self._burst(len(session.ids), count)
        session._accept(token, self.after if len(self.drawn) == 1 else None)
        if speculator:
            speculator.tell(0, told.step_s)
        return True

    def _burst(self, position: int, count: int, fresh: int = 1) -> Told:
        session, burst = self.session, self.burst
        assert burst is not None
        told = session._insist(
            lambda: burst.tell(session._cache, self.text, position, count, fresh)
        )
        self.drawn.extend(told.choices)
        self.after = told.logits
        return told

    def _choose(self) -> Choice:
        if self.drawn:
            return self.drawn.popleft()
        text, logits = self.text, self.session._logits
        assert logits is not None
        return self.chain.choose(logits, text, len(text), self.alternatives)

    def _alternatives(self, choice: Choice) -> tuple[Alternative, ...]:
        tokenizer = self.session.model.tokenizer
        return tuple(
            Alternative(i, tokenizer.token_bytes(i).decode("utf-8", "replace"), p)
            for i, p in choice.alternatives
        )

    def _flush(self) -> str:
        """What the detokenizer and the stop matcher hold, now that nothing follows."""
        text, stopped = self.matcher.push(self.detokenizer.flush())
        return text if stopped else text + self.matcher.flush()

    def _statistics(self) -> Statistics:
        return Statistics(
            prefill_tokens=self.prefill_tokens,
            reused_tokens=self.reused_tokens,
            prefill_s=self.prefill_s,
            decode_tokens=len(self.generated),
            decode_s=self.decode_s,
            context_used=len(self.session.ids),
            context_size=self.session.context,
            guessed_tokens=self.guessed,
            accepted_tokens=self.accepted,
        )


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """How many first ids two texts share."""
    same, most = 0, min(len(a), len(b))
    while same < most:  # halves are compared, each a single call
        middle = (same + most + 1) // 2
        if list(a[same:middle]) == list(b[same:middle]):
            same = middle
        else:
            most = middle - 1
    return same
