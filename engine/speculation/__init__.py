"""Speculation: tokens are guessed and computed together with the next one, several rows a step.

A guess never changes a story. Every guessed token is held against what the sampler draws from the
very same logits, which do not depend on how many rows a step had; what was guessed wrong is
overwritten. So time alone decides whether and how much to guess, and it is measured as it goes.
"""

from __future__ import annotations

from fireside.engine.hints import Literal

# Who guesses is imported when there is something to guess: behind the first word of a story.

Speculation = Literal["auto", "lookup", "draft", "off"]
"""auto: lookup, and the draft where there is one; whichever promises more at a place."""


def drafts(speculation: Speculation) -> bool:
    """Whether a draft is asked, if there is one."""
    return speculation in ("auto", "draft")
