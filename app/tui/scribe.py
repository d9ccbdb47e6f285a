"""The scribe: takes a generation from the wish to the page, between the engine and the keeper.

It knows no screen: what is to be seen goes to a `Page`, which the desk is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from fireside.app.library import Provenance
from fireside.app.tui.joining import join
from fireside.app.tui.keeper import Keeper, Leaf
from fireside.app.updates import (
    Conversation,
    Done,
    Failed,
    Prefill,
    Prompt,
    Request,
    Slid,
    TextUpdate,
)
from fireside.engine import Sampling
from fireside.engine.chat import Message


@dataclass(frozen=True)
class Wish:
    """What the writer has set for the next generation; max_tokens 0 = until the story ends."""

    sampling: Sampling
    max_tokens: int = 0
    stop: tuple[str, ...] = ()
    template: str = ""  # of a chat; "" = the model's own


class Writer(Protocol):
    """The part of Inference that writes."""

    def generate(self, request: Request, hold: bool = False) -> int:
        """Begin, with `hold` at `release` or a moment later; the job's number."""
        ...

    def release(self) -> None:
        """What is to be seen of the beginning has been drawn."""
        ...

    def abort(self) -> None:
        """End it."""
        ...


class Page(Protocol):
    """Where it is seen."""

    def lay_out(self) -> None:
        """The page has changed as a whole."""
        ...

    def hide_last(self) -> None:
        """The last part is about to be written anew."""
        ...

    def part_begins(self, leaf: Leaf) -> None:
        """A part follows."""
        ...

    def part_grows(self, leaf: Leaf, text: str) -> None:
        """It becomes longer."""
        ...

    def generation_begins(self) -> None:
        """The model takes up its pen, as soon as the page has been drawn and says `release`."""
        ...

    def part_ends(self, ending: Done | Failed) -> None:
        """The model has put down its pen."""
        ...

    def tell(self, message: str, error: bool = False) -> None:
        """One line for the writer."""
        ...


Generation = Prefill | TextUpdate | Slid | Done | Failed


class Scribe:
    """At most one generation at a time; what is asked for meanwhile waits or is refused."""

    page: Page  # given once there is one

    def __init__(self, writer: Writer, keeper: Keeper) -> None:
        self.writer = writer
        self.keeper = keeper
        self.job = 0  # the generation that runs, 0 = none
        self._wish = Wish(Sampling())
        self._leaf: Leaf | None = None  # the part it writes; None before its first word
        self._beside: Leaf | None = None  # the part it replaces
        self._slid = False
        self._after: Callable[[], None] | None = None

    @property
    def writing(self) -> bool:
        """Whether the model reads or writes for this page."""
        return self.job != 0

    # -- wishes ---------------------------------------------------------------------------------

    def go_on(self, words: str, wish: Wish) -> None:
        """The words join the story and the model continues it; without words it just does."""
        if self.writing:
            if words.strip():  # the writer cuts in
                self.when_idle(lambda: self.go_on(words, wish))
            return
        if words.strip():
            chat = self.keeper.mode == "chat"
            text = words.strip() if chat else join(self.keeper.text, words)
            self.page.part_begins(self.keeper.write("writer", text))
        elif self.keeper.mode == "chat" and not self._expects_reply():
            self.page.tell("Say something first: it is your turn.")
            return
        self._begin(wish, self.keeper.leaves)

    def again(self, wish: Wish) -> None:
        """Write the last part anew, as another sibling; the old one stays beside it."""
        last = self.keeper.last
        if self.writing or last is None:
            return
        if last.author == "writer":
            self._begin(wish, self.keeper.leaves)
            return
        seed = wish.sampling.seed
        if seed is not None:  # a seed that is kept would write the same words again
            seed = (seed + self.keeper.siblings()[1]) % 2**64
            wish = replace(wish, sampling=replace(wish.sampling, seed=seed))
        self._beside = last
        self.page.hide_last()
        self._begin(wish, self.keeper.leaves[:-1])

    def stop(self) -> bool:
        """End the generation and keep what is there; False when there is none."""
        self._after = None
        if self.writing:
            self.writer.abort()
        return self.writing

    def when_idle(self, deed: Callable[[], None]) -> None:
        """Do it now, or end the generation and do it then."""
        if self.writing:
            self._after = deed
            self.writer.abort()
        else:
            deed()

    def _expects_reply(self) -> bool:
        last = self.keeper.last
        return last is not None and last.author == "writer"

    def _begin(self, wish: Wish, leaves: list[Leaf]) -> None:
        self._wish, self._leaf, self._slid = wish, None, False
        prompt: Prompt
        if self.keeper.mode == "chat":
            prompt = conversation(leaves, wish.template)
        else:
            prompt = "".join(leaf.text for leaf in leaves)
        self.job = self.writer.generate(
            Request(prompt, wish.sampling, wish.max_tokens, wish.stop, overflow="slide"), hold=True
        )
        self.page.generation_begins()

    # -- what the engine tells ------------------------------------------------------------------

    def receive(self, update: Generation) -> None:
        """Take in what has happened; updates of other generations are none of ours."""
        if update.job != self.job:
            return
        if isinstance(update, TextUpdate):
            self._grow(update.text)
        elif isinstance(update, Slid):
            if not self._slid:
                self.page.tell("The story outgrew the context: its middle is no longer seen.")
            self._slid = True
        elif isinstance(update, Done | Failed):
            self._end(update)

    def wind_up(self, updates: Iterable[object]) -> None:
        """The screen is gone: take in the last words all the same, so that they are kept."""
        self.page, self._after = _NoPage(), None
        for update in updates:
            if isinstance(update, Generation):
                self.receive(update)

    def _grow(self, text: str) -> None:
        if self._leaf is None:
            if self.keeper.mode == "chat" or not self.keeper.leaves:
                text = text.lstrip()
            if not text:
                return
            beside, self._beside = self._beside, None
            if beside is None:
                self._leaf = self.keeper.write("model", "")
            else:
                self._leaf = self.keeper.write_beside(beside, "")
            self.page.part_begins(self._leaf)
        self.keeper.grow(self._leaf, text)
        self.page.part_grows(self._leaf, text)

    def _end(self, ending: Done | Failed) -> None:
        leaf, self._leaf, self.job = self._leaf, None, 0
        if leaf is not None:
            self.keeper.finish(leaf, self._provenance(ending))
        elif self._beside is not None:
            self._beside = None
            self.page.lay_out()
        if isinstance(ending, Failed):
            self.page.tell(ending.message, error=True)
        elif leaf is None and ending.reason == "end":
            self.page.tell("For the model the story ends here: lead on with a few words.")
        self.page.part_ends(ending)
        deed, self._after = self._after, None
        if deed is not None:
            deed()

    def _provenance(self, ending: Done | Failed) -> Provenance:
        sampling = self._wish.sampling.to_dict()
        seed = sampling.pop("seed")
        if isinstance(ending, Failed):
            return Provenance(sampling=sampling, seed=seed, finish_reason="failed")
        info, statistics = ending.info, ending.statistics
        return Provenance(
            model=info.name if info else "",
            quant=info.quant if info else "",
            kernels=info.kernels if info else "",
            isa=info.isa if info else "",
            sampling=sampling,
            seed=ending.seed,
            finish_reason=ending.reason,
            tokens=statistics.decode_tokens,
            tok_s=round(statistics.decode_tok_s, 1),
        )


class _NoPage:
    """Where nothing is seen any more."""

    def lay_out(self) -> None:
        pass

    def hide_last(self) -> None:
        pass

    def part_begins(self, leaf: Leaf) -> None:
        pass

    def part_grows(self, leaf: Leaf, text: str) -> None:
        pass

    def generation_begins(self) -> None:
        pass

    def part_ends(self, ending: Done | Failed) -> None:
        pass

    def tell(self, message: str, error: bool = False) -> None:
        pass


def conversation(leaves: Sequence[Leaf], template: str = "") -> Conversation:
    """The parts of a chat as turns; what one author said in several parts is one turn."""
    messages: list[Message] = []
    for leaf in leaves:
        text = leaf.text.strip()
        role: Literal["user", "assistant"] = "user" if leaf.author == "writer" else "assistant"
        if messages and messages[-1].role == role:
            text = f"{messages.pop().content}\n{text}"
        messages.append(Message(role, text))
    return Conversation(tuple(messages), template)
