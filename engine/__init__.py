"""Fireside's engine: model files -> weights -> tokens -> text. It knows nothing of the application.

    from fireside.engine import Sampling, Token, load

    model = load("stories.gguf", quant="q8")
    for event in model.session().generate("Once upon a time", Sampling(seed=7), max_tokens=200):
        if isinstance(event, Token):
            print(event.text, end="")

One token's way from prompt to text, a file a station:

1. model.py            load(): checkpoint + tokenizer + executor = Model
2. checkpoints/gguf.py the file: configuration, tensors, vocabulary (llama2c.py likewise)
3. tokenizers/spm.py   text -> ids
4. architectures/decoder.py the Plan: operations of one forward pass (reference.py: as formulas)
5. executors/native.py the plan in C, native/step.c (executors/numpy_executor.py: the same in NumPy)
6. session.py          the timeline: what is cached, what is computed, generate()
7. samplers/chain.py   logits -> the next id (speculation/: guesses ahead of it, all checked)
"""

from fireside.engine.checkpoints import open_checkpoint
from fireside.engine.config import ModelConfig
from fireside.engine.errors import (
    CheckpointError,
    ContextOverflowError,
    FiresideError,
    KernelsError,
    SamplingError,
    UnsupportedError,
)
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
from fireside.engine.executors import KV, QUANTS, Quant
from fireside.engine.model import Model, load
from fireside.engine.samplers import Sampling
from fireside.engine.session import Overflow, Session
from fireside.engine.siblings import Tagged, generate_many
from fireside.engine.speculation import Speculation

__all__ = [
    "KV",
    "QUANTS",
    "Alternative",
    "CheckpointError",
    "ContextOverflowError",
    "ContextSlid",
    "Event",
    "FinishReason",
    "Finished",
    "FiresideError",
    "KernelsError",
    "Model",
    "ModelConfig",
    "Overflow",
    "PrefillProgress",
    "Quant",
    "Sampling",
    "SamplingError",
    "Session",
    "Speculation",
    "Statistics",
    "Tagged",
    "Token",
    "UnsupportedError",
    "generate_many",
    "load",
    "open_checkpoint",
]
