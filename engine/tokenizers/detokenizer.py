"""Text as it grows, id by id: never half a character."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from fireside.engine.hints import TYPE_CHECKING

if TYPE_CHECKING:
    from fireside.engine.tokenizers import Tokenizer

LONGEST_CHARACTER = 4  # bytes of UTF-8


class Detokenizer:
    """Turns ids into text one at a time.

    A character may be spread over several byte tokens: it comes out with the last of them. Bytes
    that can never become a character come out as U+FFFD. The space that encoding puts before a
    text is left out at its beginning: where nothing, or only a BOS, stands before.

    `previous_ids` is what stands before: its text is not given out, but it may end in half a
    character. The texts of all `push` calls and of `flush` joined are `Tokenizer.decode(ids)`.
    """

    def __init__(self, tokenizer: Tokenizer, previous_ids: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._at_beginning = True
        for token in self._tail(previous_ids):
            self.push(token)

    def push(self, token: int) -> str:
        """The text that `token` completes; may be empty."""
        vocabulary = self._tokenizer.vocabulary
        added = self._tokenizer.token_bytes(token)
        if self._at_beginning and added:
            self._at_beginning = False
            prefixed = vocabulary.add_space_prefix and token != vocabulary.unk_id
            if prefixed and added.startswith(b" "):
                added = added[1:]
        elif token == vocabulary.bos_id:
            self._at_beginning = True
        return self._decoder.decode(added)

    def flush(self) -> str:
        """What is left at the end: U+FFFD for half a character, else nothing."""
        text = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return text

    def _tail(self, ids: Sequence[int]) -> Sequence[int]:
        """The last of `ids`: as many as decide what comes next.

        That is a character's worth of bytes, or what follows a BOS.
        """
        size = 0
        for i in range(len(ids) - 1, -1, -1):
            size += len(self._tokenizer.token_bytes(ids[i]))
            if size > LONGEST_CHARACTER or ids[i] == self._tokenizer.vocabulary.bos_id:
                return ids[i:]
        return ids
