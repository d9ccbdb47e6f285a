"""Samplers: logits [vocab] -> one id. `Sampling` holds the parameters, `Chain` runs them.

The order is llama.cpp's default and is written down once, in `chain.STAGES`.
"""

from fireside.engine.samplers.chain import STAGES, Chain, Choice
from fireside.engine.samplers.native import NativeChain
from fireside.engine.samplers.parameters import Sampling

__all__ = ["STAGES", "Chain", "Choice", "Sampling", "chain_for"]


def chain_for(sampling: Sampling, seed: int, kernels: str) -> Chain:
    """The chain that goes with an executor called `kernels`: "native" or "numpy"."""
    return NativeChain(sampling, seed) if kernels == "native" else Chain(sampling, seed)
