"""A conversation on a plain terminal or over pipes: lines in, answers out."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from fireside.app.cli.failures import USAGE, CliError
from fireside.app.cli.interrupts import WATCH
from fireside.app.cli.output import Progress, TextOut, say
from fireside.app.cli.telling import load_model, new_session
from fireside.app.settings import Settings
from fireside.engine import Finished, PrefillProgress, Token
from fireside.engine import chat as chats
from fireside.engine.chat import Message

PROMPT = "> "


class Conversation:
    """Reads lines until there are no more; remembers what was said."""

    def __init__(self, settings: Settings, system: str, template: str) -> None:
        if template and template != chats.OWN:
            chats.get(template)  # a wrong name is told before anything is loaded
        self.settings = settings
        self.out = TextOut()
        self.progress = Progress()
        self.system = [Message("system", system)] if system else []
        self.messages: list[Message] = []
        self.model, _ = load_model(settings, self.progress)
        self.template = chats.choose(self.model.tokenizer.vocabulary, template)
        self.session = new_session(self.model, settings, self.progress)
        self.seed = settings.sampling.seed
        self.by_hand = sys.stdin is not None and sys.stdin.isatty() and self.out.is_terminal
        # name -> (what it does, its code; it gets what stands behind the name)
        self.commands: dict[str, tuple[str, Callable[[str], None]]] = {
            "help": ("list these", self._help),
            "again": ("answer the last line anew", self._again),
            "undo": ("forget the last line and its answer", self._undo),
            "reset": ("forget everything that was said", self._reset),
            "save": ("/save FILE: write the conversation to a file", self._save),
            "quit": ("end the conversation (so does Ctrl-D)", self._quit),
        }
        self.over = False

    def run(self) -> int:
        """Talk until the end; the exit code."""
        if self.by_hand:
            with contextlib.suppress(ImportError):
                import readline  # noqa: F401  (input() then edits lines and remembers them)
            say(f"{self.model.name}, template {self.template.name}. /help lists the commands.")
        while not self.over:
            line = self._read()
            if line is None:
                break
            if line.startswith("/"):
                self._command(line)
            elif line.strip():
                self._answer([*self.messages, Message("user", line.strip())])
        return 0

    def _read(self) -> str | None:
        """The next line; None at the end of the input."""
        if self.by_hand:
            WATCH.stop()  # readline holds the terminal and must be left in good order
            try:
                return input(PROMPT)
            except (EOFError, KeyboardInterrupt) as end:
                self.out.write("\n")
                if isinstance(end, KeyboardInterrupt):
                    raise
                return None
            finally:
                WATCH.start()
        line = sys.stdin.buffer.readline() if sys.stdin is not None else b""
        try:
            return line.decode("utf-8").rstrip("\r\n") if line else None
        except UnicodeDecodeError as error:
            raise CliError(
                f"standard input: not valid UTF-8 at byte {error.start} of a line", code=USAGE
            ) from None

    def _answer(self, messages: list[Message]) -> None:
        """Let the model speak after `messages`, and remember both."""
        seed = int.from_bytes(os.urandom(4)) if self.seed is None else self.seed
        tokenizer = self.model.tokenizer
        events = self.session.generate(
            chats.prompt(self.template, [*self.system, *messages], tokenizer).ids(tokenizer),
            replace(self.settings.sampling, seed=seed),
            max_tokens=self.settings.max_tokens or self.settings.passage_tokens,
            stop=(*self.template.stops, *self.settings.stop),
            overflow="slide",
        )
        text = ""
        with WATCH.calling(self.session.abort) as watch:
            for event in events:
                if watch.caught:
                    self.session.abort()  # again: generate() forgets one from before it began
                if isinstance(event, PrefillProgress):
                    if not text:
                        self.progress.show(f"reading {event.done:,} of {event.total:,} tokens")
                elif isinstance(event, Token | Finished):
                    self.progress.clear()
                    piece = event.text if text else event.text.lstrip()
                    self.out.write(piece)
                    text += piece
        self.out.write("\n")
        if watch.caught and not self.by_hand:
            WATCH.leave(watch.caught)
        self.messages = [*messages, Message("assistant", text.strip())]

    # -- commands -------------------------------------------------------------------------------

    def _command(self, line: str) -> None:
        name, _, rest = line[1:].partition(" ")
        if name in self.commands:
            self.commands[name][1](rest.strip())
        else:
            known = ", ".join("/" + name for name in self.commands)
            say(f"no command /{name}; there are {known}")

    def _help(self, rest: str) -> None:
        for name, (what, _) in self.commands.items():
            say(f"/{name:6} {what}")

    def _again(self, rest: str) -> None:
        if not self.messages:
            say("nothing was said yet")
            return
        if self.seed is not None:  # the same seed would say the same words
            self.seed += 1
        self._answer(self.messages[:-1])

    def _undo(self, rest: str) -> None:
        del self.messages[-2:]
        say(f"{len(self.messages) // 2} lines and answers are left")

    def _reset(self, rest: str) -> None:
        self.messages = []
        say("everything is forgotten")

    def _save(self, rest: str) -> None:
        if not rest:
            say("name the file: /save FILE")
            return
        names = {"system": "", "user": "You: ", "assistant": "Model: "}
        text = "\n\n".join(names[m.role] + m.content for m in [*self.system, *self.messages])
        path = Path(rest).expanduser()
        try:
            path.write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            say(f"{path}: cannot be written: {error.strerror or error}")
        else:
            say(f"saved to {path}")

    def _quit(self, rest: str) -> None:
        self.over = True
