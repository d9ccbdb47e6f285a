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

import importlib

from fireside.engine.hints import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fireside.engine.checkpoints import open_checkpoint as open_checkpoint
    from fireside.engine.config import ModelConfig as ModelConfig
    from fireside.engine.errors import CheckpointError as CheckpointError
    from fireside.engine.errors import ContextOverflowError as ContextOverflowError
    from fireside.engine.errors import FiresideError as FiresideError
    from fireside.engine.errors import KernelsError as KernelsError
    from fireside.engine.errors import SamplingError as SamplingError
    from fireside.engine.errors import UnsupportedError as UnsupportedError
    from fireside.engine.events import Alternative as Alternative
    from fireside.engine.events import ContextSlid as ContextSlid
    from fireside.engine.events import Event as Event
    from fireside.engine.events import Finished as Finished
    from fireside.engine.events import FinishReason as FinishReason
    from fireside.engine.events import PrefillProgress as PrefillProgress
    from fireside.engine.events import Statistics as Statistics
    from fireside.engine.events import Token as Token
    from fireside.engine.executors import KV as KV
    from fireside.engine.executors import QUANTS as QUANTS
    from fireside.engine.executors import Quant as Quant
    from fireside.engine.model import Model as Model
    from fireside.engine.model import load as load
    from fireside.engine.samplers import Sampling as Sampling
    from fireside.engine.session import Overflow as Overflow
    from fireside.engine.session import Session as Session
    from fireside.engine.siblings import Tagged as Tagged
    from fireside.engine.siblings import generate_many as generate_many
    from fireside.engine.speculation import Speculation as Speculation

# name -> the module it is from, which is imported when the name is asked for
_HOMES = {
    "open_checkpoint": "checkpoints",
    "ModelConfig": "config",
    "CheckpointError": "errors",
    "ContextOverflowError": "errors",
    "FiresideError": "errors",
    "KernelsError": "errors",
    "SamplingError": "errors",
    "UnsupportedError": "errors",
    "Alternative": "events",
    "ContextSlid": "events",
    "Event": "events",
    "Finished": "events",
    "FinishReason": "events",
    "PrefillProgress": "events",
    "Statistics": "events",
    "Token": "events",
    "KV": "executors",
    "QUANTS": "executors",
    "Quant": "executors",
    "Model": "model",
    "load": "model",
    "Sampling": "samplers",
    "Overflow": "session",
    "Session": "session",
    "Tagged": "siblings",
    "generate_many": "siblings",
    "Speculation": "speculation",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*globals(), *_HOMES]
