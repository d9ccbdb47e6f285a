"""A script for an environment with torch and transformers: tiny random models in their own format.

    python transformers_models.py FOLDER NAME...     ("all": every one)

Writes FOLDER/NAME/ as save_pretrained does, and FOLDER/NAME.npz: `prompt`, `greedy` (64 ids, each
the likeliest to transformers), `logits` [len(prompt) + 64, vocab] of the whole text.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

SMALL: dict[str, Any] = {
    "vocab_size": 96, "hidden_size": 64, "intermediate_size": 88, "num_hidden_layers": 4,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None,
}  # fmt: skip
GPT2: dict[str, Any] = {
    "vocab_size": 96, "n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 256,
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
EXPERTS = {"num_experts_per_tok": 2, "tie_word_embeddings": False}
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 64,
}  # fmt: skip
LONGROPE = {
    "rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.0 + i / 4 for i in range(8)],
    "long_factor": [2.0 + i for i in range(8)], "original_max_position_embeddings": 128,
    "factor": 2.0,
}  # fmt: skip
# every text of more than 4 tokens is a long one
VERY_LONG = {**LONGROPE, "original_max_position_embeddings": 4, "factor": 64.0}
YARN = {
    "rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip

GEMMA3 = {**SMALL, "head_dim": 24, "query_pre_attn_scalar": 24, "sliding_window": 20}
VISION = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}

# Name -> class of the configuration, what differs from SMALL (or GPT2)
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama-1": ("LlamaConfig", {"num_key_value_heads": 4}),
    "llama-2": ("LlamaConfig", {"num_key_value_heads": 4, "rms_norm_eps": 1e-5}),
    "llama": ("LlamaConfig", {}),
    "llama-3": (
        "LlamaConfig",
        {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}, "rms_norm_eps": 1e-5},
    ),
    "llama-3.1": ("LlamaConfig", {"rope_parameters": LLAMA3}),
    "llama-3.2": (
        "LlamaConfig",
        {"rope_parameters": {**LLAMA3, "factor": 32.0}, "tie_word_embeddings": True},
    ),
    "llama-tied-biased": (
        "LlamaConfig",
        {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True, "head_dim": 24},
    ),
    "llama-linear": (
        "LlamaConfig",
        {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}},
    ),
    "llama-yarn": ("LlamaConfig", {"rope_parameters": YARN}),
    "tinyllama": ("LlamaConfig", {"num_key_value_heads": 1, "rms_norm_eps": 1e-5}),
    "smollm2": (
        "LlamaConfig",
        {"tie_word_embeddings": True, "num_attention_heads": 8, "num_key_value_heads": 4,
         "rope_parameters": {"rope_type": "default", "rope_theta": 1e5}},
    ),
    "mistral": ("MistralConfig", {"sliding_window": 24}),
    "mixtral": ("MixtralConfig", {"num_local_experts": 5, "sliding_window": None, **EXPERTS}),
    "qwen2": ("Qwen2Config", {"tie_word_embeddings": True}),
    "qwen2.5": (
        "Qwen2Config", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}},
    ),
    "qwen2-window": (
        "Qwen2Config",
        {"use_sliding_window": True, "sliding_window": 20, "max_window_layers": 2},
    ),
    "qwen3": ("Qwen3Config", {"head_dim": 24}),
    "qwen3-moe": (
        "Qwen3MoeConfig",
        {"num_experts": 6, "moe_intermediate_size": 40, "norm_topk_prob": True, **EXPERTS},
    ),
    "qwen3-moe-plain": (
        "Qwen3MoeConfig",
        {"num_experts": 6, "moe_intermediate_size": 40, "head_dim": 16, **EXPERTS},
    ),
    "smollm3": ("SmolLM3Config", {"num_hidden_layers": 5}),
    "smollm3-window": ("SmolLM3Config", {"use_sliding_window": True, "sliding_window": 20}),
    "smollm3-odd": ("SmolLM3Config", {"no_rope_layers": [1, 0, 1, 0]}),
    "gemma": ("GemmaConfig", {"head_dim": 24}),
    "gemma2": (
        "Gemma2Config",
        {"head_dim": 24, "query_pre_attn_scalar": 24, "sliding_window": 20,
         "attn_logit_softcapping": 5.0, "final_logit_softcapping": 3.0},
    ),
    "gemma2-odd": ("Gemma2Config", {"head_dim": 24, "query_pre_attn_scalar": 30}),
    "gemma3": ("Gemma3TextConfig", {**GEMMA3, "num_hidden_layers": 7}),
    "gemma3-odd": (
        "Gemma3TextConfig",
        {"head_dim": 24, "query_pre_attn_scalar": 30, "sliding_window": 20, "num_hidden_layers": 7},
    ),
    "gemma3-pictures": ("Gemma3Config", {"text_config": GEMMA3, "vision_config": VISION}),
    "phi3": ("Phi3Config", {"sliding_window": 24}),
    "phi3-longrope": (
        "Phi3Config",
        {"rope_parameters": LONGROPE, "original_max_position_embeddings": 128},
    ),
    "phi3-long": (
        "Phi3Config",
        {"rope_parameters": VERY_LONG, "original_max_position_embeddings": 4},
    ),
    "olmo2": ("Olmo2Config", {}),
    "stablelm": ("StableLmConfig", {"use_qkv_bias": True}),
    "stablelm-12b": ("StableLmConfig", {"use_parallel_residual": True, "qk_layernorm": True}),
    "gpt2": ("GPT2Config", {}),
    "gpt-neox": ("GPTNeoXConfig", {}),
    "gpt-neox-serial": ("GPTNeoXConfig", {"use_parallel_residual": False}),
    "gpt-neox-odd": ("GPTNeoXConfig", {"hidden_act": "gelu_new"}),
}  # fmt: skip


def make(folder: Path, name: str) -> None:
    """One model and what it says."""
    import numpy as np
    import torch
    import transformers

    kind, own = MODELS[name]
    base = {"GPT2Config": GPT2, "Gemma3Config": {}}.get(kind, SMALL)
    config = getattr(transformers, kind)(**{**base, **own})
    config._attn_implementation = "eager"
    torch.manual_seed(sum(map(ord, name)))
    model = transformers.AutoModelForCausalLM.from_config(config).eval().float()
    with torch.no_grad():
        for parameter in model.parameters():  # else norms are 1, biases 0, and all texts alike
            changed = parameter + torch.randn_like(parameter) * 0.12
            # numbers that F16 and BF16 can hold too, so that all three are the same model
            parameter.copy_(changed.half().bfloat16().float())
    # several files, so that there is an index
    model.save_pretrained(folder / name, max_shard_size="150KB" if name == "llama" else "5GB")
    ids = prompt = [1, 5, 9, 40, 33, 7]
    with torch.no_grad():
        for _ in range(64):
            ids = [*ids, int(model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax())]
        logits = model(torch.tensor([ids]), use_cache=False).logits[0]
    np.savez(folder / f"{name}.npz", prompt=prompt, greedy=ids[6:], logits=logits.numpy())
    for kind in ("float16", "bfloat16"):
        model.to(getattr(torch, kind)).save_pretrained(folder / f"{name}.{kind}")


def save_torch(folder: Path) -> None:
    """The weights of llama in files of torch, as they were before safetensors."""
    import shutil

    import torch
    from safetensors.torch import load_file

    for name, zipped in (("llama", True), ("gpt2", False)):
        out = folder / f"{name}-torch"
        out.mkdir()
        shutil.copy(folder / name / "config.json", out)
        shutil.copy(folder / f"{name}.npz", folder / f"{name}-torch.npz")
        state: dict[str, torch.Tensor] = {}
        for file in (folder / name).glob("*.safetensors"):
            state.update(load_file(file))
        target = out / "pytorch_model.bin"
        torch.save(state, target, _use_new_zipfile_serialization=zipped)


META = {
    "embed_tokens": "tok_embeddings", "norm": "norm", "lm_head": "output",
    "self_attn.q_proj": "attention.wq", "self_attn.k_proj": "attention.wk",
    "self_attn.v_proj": "attention.wv", "self_attn.o_proj": "attention.wo",
    "mlp.gate_proj": "feed_forward.w1", "mlp.down_proj": "feed_forward.w2",
    "mlp.up_proj": "feed_forward.w3", "input_layernorm": "attention_norm",
    "post_attention_layernorm": "ffn_norm",
}  # fmt: skip


def save_meta(folder: Path) -> None:
    """The weights of llama as Meta and llama2.c keep them: other names, rope of neighbours."""
    import json
    import shutil

    import torch
    from safetensors.torch import load_file

    state: dict[str, torch.Tensor] = {}
    for file in (folder / "llama").glob("*.safetensors"):
        for name, values in load_file(file).items():
            _, _, inner = name.removesuffix(".weight").rpartition("model.")
            parts = inner.split(".", 2)
            layer = f"layers.{parts[1]}." if parts[0] == "layers" else ""
            new = META[parts[2] if layer else inner]
            if new in ("attention.wq", "attention.wk"):  # the halves of a head, interleaved
                values = values.reshape(-1, 2, 8, 64).transpose(1, 2).reshape(-1, 64).contiguous()
            state[f"{layer}{new}.weight"] = values
    sizes = {"dim": 64, "n_layers": 4, "n_heads": 4, "n_kv_heads": 2, "norm_eps": 1e-6}
    (folder / "llama-meta").mkdir()
    params = {**sizes, "vocab_size": -1, "multiple_of": 8}
    (folder / "llama-meta" / "params.json").write_text(json.dumps(params))
    for shard in range(2):
        own: dict[str, torch.Tensor] = {}
        for name, values in state.items():
            columns = name.endswith(("wo.weight", "w2.weight", "tok_embeddings.weight"))
            half = values.chunk(2, dim=int(columns))[shard] if values.ndim == 2 else values
            own[name] = half.clone()
        torch.serialization.set_crc32_options(shard == 0)  # files may go without checksums
        torch.save(own, folder / "llama-meta" / f"consolidated.0{shard}.pth")
    arguments = {**sizes, "vocab_size": 96, "max_seq_len": 256, "dropout": 0.0}
    copies = [torch.nn.Parameter(values.clone()) for values in state.values()]
    optimiser = torch.optim.AdamW(copies)
    for copy in copies:
        copy.grad = torch.ones_like(copy)
    optimiser.step()  # so that it has a state to save
    model = {f"_orig_mod.{name}": values for name, values in state.items()}
    checkpoint = {
        "model": model, "optimizer": optimiser.state_dict(), "model_args": arguments,
        "best_val_loss": torch.tensor(1.5), "iter_num": 7, "config": {"device": "cuda"},
    }  # fmt: skip
    torch.save(checkpoint, folder / "llama2c.pt")
    for name in ("llama-meta", "llama2c.pt"):
        shutil.copy(folder / "llama.npz", folder / f"{name}.npz")


if __name__ == "__main__":
    where, wanted = Path(sys.argv[1]), sys.argv[2:]
    for one in MODELS if wanted == ["all"] else wanted:
        make(where, one)
    if wanted == ["all"]:
        save_torch(where)
        save_meta(where)
