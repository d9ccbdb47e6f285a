"""Samplers: logits [vocab] -> one id. `Sampling` holds the parameters, `Chain` runs them.

The order is llama.cpp's default and is written down once, in `chain.STAGES`.
"""

from fireside.engine.samplers.chain import STAGES, Chain, Choice
from fireside.engine.samplers.parameters import Sampling

__all__ = ["STAGES", "Chain", "Choice", "Sampling"]
