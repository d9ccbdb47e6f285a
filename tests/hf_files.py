"""Hugging Face's folders, made without its libraries."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from fireside.engine.architectures.hf import NAMES
from fireside.engine.checkpoints.hf import split
from fireside.engine.checkpoints.types import Checkpoint, Tensor


def safetensors(tensors: Mapping[str, Tensor]) -> tuple[bytes, int]:
    """A file, and the bytes of its header."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    parts: list[bytes] = []
    offset = 0
    for name, tensor in tensors.items():
        data = tensor.data.tobytes()
        place = [offset, offset + len(data)]
        header[name] = {"dtype": tensor.block, "shape": list(tensor.shape), "data_offsets": place}
        parts.append(data)
        offset += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + b"".join(parts), 8 + len(text)


def llama_tensors(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """The weights of a Llama model under Hugging Face's names."""
    result = {}
    for gguf, tensor in checkpoint.tensors.items():
        layer, key = split(gguf)
        prefix = "" if key == "output.weight" else "model."
        result[prefix + NAMES[key].replace("{}", layer)] = tensor
    return result


def llama_config(checkpoint: Checkpoint) -> dict[str, object]:
    """Its config.json."""
    c = checkpoint.config
    return {
        "model_type": "llama", "hidden_size": c.dim, "intermediate_size": c.hidden_dim,
        "num_hidden_layers": c.n_layers, "num_attention_heads": c.n_heads,
        "num_key_value_heads": c.n_kv_heads, "head_dim": c.head_dim, "vocab_size": c.vocab_size,
        "max_position_embeddings": c.context_length, "rms_norm_eps": c.norm_eps,
        "rope_theta": c.rope_theta, "tie_word_embeddings": checkpoint.tied, "hidden_act": "silu",
        "torch_dtype": "float32", "rope_scaling": None,
    }  # fmt: skip


def llama_folder(folder: Path, checkpoint: Checkpoint, files: int = 1) -> Path:
    """A folder, in so many files."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(llama_config(checkpoint)))
    tensors = llama_tensors(checkpoint)
    if files == 1:
        (folder / "model.safetensors").write_bytes(safetensors(tensors)[0])
        return folder
    table: dict[str, str] = {}
    for i in range(files):
        name = f"model-{i + 1:05}-of-{files:05}.safetensors"
        own = {key: tensors[key] for key in list(tensors)[i::files]}
        (folder / name).write_bytes(safetensors(own)[0])
        table |= dict.fromkeys(own, name)
    index = {"metadata": {"total_size": checkpoint.nbytes}, "weight_map": table}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder
