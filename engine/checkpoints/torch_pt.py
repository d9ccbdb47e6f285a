"""Files of torch.save that hold a model: llama2.c's training checkpoints (.pt).

{"model": state dict, "model_args": what configures it, ...}; the optimiser's state and the rest are
left out. Other files of torch are shown to the readers of the folder they lie in.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fireside.engine.checkpoints import Format, register, torch_zip
from fireside.engine.checkpoints.gguf_fields import Fields
from fireside.engine.checkpoints.llama2c import make_header
from fireside.engine.checkpoints.pickles import Dict, TensorRef, shown
from fireside.engine.checkpoints.types import Checkpoint, Tensor
from fireside.engine.config import ModelConfig
from fireside.engine.errors import CheckpointError, UnsupportedError

# GGUF's name -> Meta's, which llama2.c took over
OUTER = {
    "token_embd.weight": "tok_embeddings.weight",
    "output_norm.weight": "norm.weight",
    "output.weight": "output.weight",
}
LAYER = {
    "attn_norm": "attention_norm", "attn_q": "attention.wq", "attn_k": "attention.wk",
    "attn_v": "attention.wv", "attn_output": "attention.wo", "ffn_norm": "ffn_norm",
    "ffn_gate": "feed_forward.w1", "ffn_down": "feed_forward.w2", "ffn_up": "feed_forward.w3",
}  # fmt: skip
PREFIXES = ("_orig_mod.", "module.")  # of compiled and of distributed models
TABLES = ("freqs_cos", "freqs_sin", "freqs_cis", "rope.freqs")  # rope's, which are computed here


def names(n_layers: int) -> dict[str, str]:
    """GGUF's name of every weight of a Llama model -> Meta's."""
    result = dict(OUTER)
    for i in range(n_layers):
        for gguf, meta in LAYER.items():
            result[f"blk.{i}.{gguf}.weight"] = f"layers.{i}.{meta}.weight"
    return result


def llama_config(
    path: Path, sizes: tuple[int, ...], norm_eps: float, theta: float = 10000.0
) -> ModelConfig:
    """A Llama model of llama2c.FIELDS; CheckpointError where the numbers make none."""
    h = make_header(0, sizes, False)
    if fault := h.fault():
        raise CheckpointError(f"{path}: {fault}", "its configuration is damaged")
    return h.config(norm_eps, theta)


def plain_names(state: Mapping[str | int, object]) -> dict[str, TensorRef]:
    """The tensors of a state dict by their names, without what torch put before those."""
    result: dict[str, TensorRef] = {}
    for key, value in state.items():
        if isinstance(value, TensorRef):
            name = str(key)
            for prefix in PREFIXES:
                name = name.removeprefix(prefix)
            result[name] = value
    return result


def rows_of(path: Path, refs: Mapping[str, TensorRef], name: str) -> int:
    """The first dimension of a matrix."""
    ref = refs.get(name)
    if ref is None or len(ref.shape) != 2:
        raise CheckpointError(f"{path}: tensor {name} is missing or no matrix")
    return ref.shape[0]


def read(path: Path) -> Checkpoint:
    """Open a file of torch.save: llama2.c's, or the folder that it is a part of."""
    from fireside.engine.checkpoints import hf, meta

    if (path.parent / "params.json").is_file() and path.name.startswith("consolidated"):
        return meta.read(path.parent)
    if (path.parent / "config.json").is_file() and hf.is_weights(path):
        return hf.read(path)
    saved = torch_zip.read(path)
    model, arguments = saved.value.get("model"), saved.value.get("model_args")
    if not isinstance(model, Dict) or not isinstance(arguments, Dict):
        held = ", ".join(shown(str(key)) for key in list(saved.value)[:4]) or "nothing"
        raise UnsupportedError(
            f"{path}: a file of torch.save without a configuration: it holds {held}",
            "give the folder it lies in, with config.json or params.json, or a checkpoint of"
            " llama2.c's train.py",
        )
    return read_llama2c(saved, model, arguments)


def read_llama2c(saved: torch_zip.Saved, model: Dict, arguments: Dict) -> Checkpoint:
    """What llama2.c's train.py writes."""
    path, refs = saved.path, plain_names(model)
    f = Fields(path, {str(key): value for key, value in arguments.items() if value is not None})
    n_heads = f.integer("n_heads", None, 1, 4096)
    sizes = (
        f.integer("dim", None, 1, 1 << 18),
        rows_of(path, refs, "layers.0.feed_forward.w1.weight"),
        f.integer("n_layers", None, 1, 4096),
        n_heads,
        f.integer("n_kv_heads", n_heads, 1, n_heads),
        rows_of(path, refs, "tok_embeddings.weight"),
        f.integer("max_seq_len", 2048, 1, 1 << 22),
    )
    config = llama_config(path, sizes, f.number("norm_eps", 1e-5, 0.0, 1.0))
    output, embedding = refs.get("output.weight"), refs.get("tok_embeddings.weight")
    if output and embedding and output.storage.key == embedding.storage.key:
        del refs["output.weight"]  # the embedding itself
    for table in TABLES:
        refs.pop(table, None)
    tensors: dict[str, Tensor] = {}
    for gguf, name in names(config.n_layers).items():
        if (ref := refs.pop(name, None)) is not None:
            tensors[gguf] = saved.tensor(gguf, ref)
    if refs:
        raise UnsupportedError(
            f"{path}: tensor {shown(min(refs))} is no part of a Llama model",
            "this version cannot run this variant of the model",
        )
    metadata: dict[str, object] = {
        key: value for key, value in f.metadata.items() if isinstance(value, str | int | float)
    }
    kind = "folder of torch.save" if path.is_dir() else "torch.save"
    return Checkpoint(
        path, f"llama2.c training checkpoint ({kind})", path.stem, config, tensors, None, metadata
    )


register(Format("PyTorch (.pt, .pth, .bin)", torch_zip.recognises, read))
