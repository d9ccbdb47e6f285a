"""Speculation: tokens are guessed and computed together with the next one, several rows a step.

A guess never changes a story. Every guessed token is held against what the sampler draws from the
very same logits, which do not depend on how many rows a step had; what was guessed wrong is
overwritten. So time alone decides whether and how much to guess, and it is measured as it goes.
"""

from fireside.engine.speculation.draft import Draft, check
from fireside.engine.speculation.speculator import Speculation, Speculator, drafts

__all__ = ["Draft", "Speculation", "Speculator", "check", "drafts"]
