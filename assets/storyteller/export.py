"""From a checkpoint to GGUF v3: Q8_0 matrices, F32 norms, sentencepiece vocabulary.

    python export.py --out storyteller.gguf [--average] [--check]

`--average` ships the moving average of the weights, which is the better one before the learning
rate has come down. `--check` loads the file with llama-cpp-python, where that is installed, and
compares ids and greedy continuations with sentencepiece and PyTorch.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import data
import gguf
import numpy as np
import sentencepiece
import torch
from model import Config, Storyteller, count_parameters

# PyTorch's name of a weight -> GGUF's; {i} is the layer.
NAMES = {
    "embedding.weight": "token_embd.weight",
    "norm.weight": "output_norm.weight",
    "layers.{i}.attention_norm.weight": "blk.{i}.attn_norm.weight",
    "layers.{i}.attention.wq.weight": "blk.{i}.attn_q.weight",
    "layers.{i}.attention.wk.weight": "blk.{i}.attn_k.weight",
    "layers.{i}.attention.wv.weight": "blk.{i}.attn_v.weight",
    "layers.{i}.attention.wo.weight": "blk.{i}.attn_output.weight",
    "layers.{i}.ffn_norm.weight": "blk.{i}.ffn_norm.weight",
    "layers.{i}.ffn.gate.weight": "blk.{i}.ffn_gate.weight",
    "layers.{i}.ffn.up.weight": "blk.{i}.ffn_up.weight",
    "layers.{i}.ffn.down.weight": "blk.{i}.ffn_down.weight",
}


def load_checkpoint(path: Path, average: bool = False) -> tuple[Storyteller, dict]:
    """The model in f32, ready to measure or to write, and what the checkpoint says about it."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    model = Storyteller(Config(**state["config"])).eval()
    model.load_state_dict(state["average" if average else "model"])
    return model, state


def gguf_names(config: Config) -> dict[str, str]:
    """Our name of every weight -> the name in the file."""
    names = {}
    for ours, theirs in NAMES.items():
        for i in range(config.layers) if "{i}" in ours else [0]:
            names[ours.format(i=i)] = theirs.format(i=i)
    return names


def quantise_q8_0(weight: np.ndarray) -> np.ndarray:
    """f32 [rows, columns] -> uint8 [rows, columns / 32 * 34]: per block an f16 scale, 32 int8."""
    blocks = weight.astype(np.float32).reshape(-1, 32)
    scale = np.abs(blocks).max(1, keepdims=True) / 127
    inverse = np.divide(1.0, scale, out=np.zeros_like(scale), where=scale > 0)
    steps = blocks * inverse
    # halves round away from zero, as ggml has it
    quants = (np.sign(steps) * np.floor(np.abs(steps) + 0.5)).astype(np.int8)
    packed = np.concatenate([scale.astype("<f2").view(np.uint8), quants.view(np.uint8)], axis=1)
    return packed.reshape(weight.shape[0], -1)


def dequantise_q8_0(packed: np.ndarray) -> np.ndarray:
    """uint8 [rows, columns / 32 * 34] -> f32 [rows, columns]."""
    blocks = np.ascontiguousarray(packed).reshape(-1, 34)
    scale = np.ascontiguousarray(blocks[:, :2]).view("<f2").astype(np.float32)
    quants = np.ascontiguousarray(blocks[:, 2:]).view(np.int8).astype(np.float32)
    return (quants * scale).reshape(packed.shape[0], -1)


def write_gguf(
    model: Storyteller, tokenizer: sentencepiece.SentencePieceProcessor, out: Path, note: str = ""
) -> None:
    """Write the model and its vocabulary; `note` ends the description."""
    c = model.config
    writer = gguf.GGUFWriter(out, "llama")
    writer.add_type("model")
    writer.add_name("Fireside storyteller")
    writer.add_description("Writes short stories for children. " + note)
    writer.add_license("CDLA-Sharing-1.0")
    writer.add_license_name("trained on TinyStories (CDLA-Sharing-1.0) and public-domain books")
    writer.add_languages(["en"])
    writer.add_size_label(f"{count_parameters(model) / 1e6:.1f}M")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_vocab_size(c.vocab_size)
    writer.add_context_length(c.context)
    writer.add_embedding_length(c.dim)
    writer.add_block_count(c.layers)
    writer.add_feed_forward_length(c.hidden)
    writer.add_head_count(c.heads)
    writer.add_head_count_kv(c.kv_heads)
    writer.add_rope_dimension_count(c.head_dim)
    writer.add_rope_freq_base(c.rope_base)
    writer.add_layer_norm_rms_eps(c.norm_eps)
    add_vocabulary(writer, tokenizer)
    weights = model.state_dict()
    for ours, theirs in gguf_names(c).items():
        weight = weights[ours].float().numpy()
        if weight.ndim == 2:
            packed = quantise_q8_0(weight)
            writer.add_tensor(theirs, packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
        else:
            writer.add_tensor(theirs, weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def read_gguf(path: Path) -> Storyteller:
    """The model of a file written here, in f32, with exactly the values that the file holds."""
    reader = gguf.GGUFReader(path)

    def field(name: str) -> float:
        return reader.fields[name].contents()

    model = Storyteller(
        Config(
            vocab_size=int(field("llama.vocab_size")),
            context=int(field("llama.context_length")),
            dim=int(field("llama.embedding_length")),
            layers=int(field("llama.block_count")),
            heads=int(field("llama.attention.head_count")),
            kv_heads=int(field("llama.attention.head_count_kv")),
            hidden=int(field("llama.feed_forward_length")),
            rope_base=field("llama.rope.freq_base"),
            norm_eps=field("llama.attention.layer_norm_rms_epsilon"),
        )
    )
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    weights = {}
    for ours, theirs in gguf_names(model.config).items():
        values = tensors[theirs].data
        values = dequantise_q8_0(values) if values.dtype == np.uint8 else np.array(values)
        weights[ours] = torch.from_numpy(values)
    model.load_state_dict(weights)
    return model.eval()


def same_vocabulary(path: Path, tokenizer: sentencepiece.SentencePieceProcessor) -> bool:
    """Whether a file's pieces and their scores are the tokenizer's, one by one."""
    fields = gguf.GGUFReader(path).fields
    pieces = fields["tokenizer.ggml.tokens"].contents()
    scores = np.array(fields["tokenizer.ggml.scores"].contents(), np.float32)
    ids = range(tokenizer.get_piece_size())
    ours = np.array([tokenizer.get_score(i) for i in ids], np.float32)
    return pieces == [tokenizer.id_to_piece(i) for i in ids] and np.array_equal(scores, ours)


def add_vocabulary(
    writer: gguf.GGUFWriter, tokenizer: sentencepiece.SentencePieceProcessor
) -> None:
    """Pieces, scores and kinds, and how a text begins."""
    kinds = []
    for i in range(tokenizer.get_piece_size()):
        if tokenizer.is_unknown(i):
            kinds.append(gguf.TokenType.UNKNOWN)
        elif tokenizer.is_control(i):
            kinds.append(gguf.TokenType.CONTROL)
        elif tokenizer.is_byte(i):
            kinds.append(gguf.TokenType.BYTE)
        else:
            kinds.append(gguf.TokenType.NORMAL)
    ids = range(len(kinds))
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([tokenizer.id_to_piece(i).encode() for i in ids])
    writer.add_token_scores([tokenizer.get_score(i) for i in ids])
    writer.add_token_types(kinds)
    writer.add_unk_token_id(tokenizer.unk_id())
    writer.add_bos_token_id(tokenizer.bos_id())
    writer.add_eos_token_id(tokenizer.eos_id())
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(True)


PROMPTS = (
    "Once upon a time",
    "The little fox wanted to see the snow.",
    'Nina said, "Look!"\nThen she ran',
    " Two  spaces, 1234 digits and\n\na blank line",
    "Çaé 日本 🦊 naïve",
)


@torch.no_grad()
def greedy(model: Storyteller, ids: list[int], count: int) -> list[int]:
    """The likeliest continuation, the whole text computed anew at each step."""
    ids, begin = list(ids), len(ids)
    while len(ids) - begin < count and ids[-1] != data.EOS:
        ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    return ids[begin:]


def check(path: Path, tokenizer: sentencepiece.SentencePieceProcessor, count: int = 80) -> None:
    """Compare with llama.cpp: ids exactly, greedy continuations as far as they agree."""
    import llama_cpp

    # llama.cpp's AMX kernels have been seen to crash on Q8_0; its other kernels do as well here.
    defaults = llama_cpp.llama_model_default_params

    def plain_kernels() -> llama_cpp.llama_model_params:
        parameters = defaults()
        parameters.use_extra_bufts = False
        return parameters

    llama_cpp.llama_cpp.llama_model_default_params = plain_kernels
    model = read_gguf(path)
    peer = llama_cpp.Llama(str(path), n_ctx=model.config.context, n_threads=2, verbose=False)
    for prompt in PROMPTS:
        ids = [data.BOS, *tokenizer.encode(prompt)]
        theirs = peer.tokenize(prompt.encode(), add_bos=True)
        assert theirs == ids, f"{prompt!r}: llama.cpp {theirs}, sentencepiece {ids}"
        ours = greedy(model, ids, count)
        other: list[int] = []
        for token in peer.generate(ids, temp=0.0, repeat_penalty=1.0):
            other.append(token)
            if token == data.EOS or len(other) == count:
                break
        pairs = zip(ours, other, strict=False)
        same = next((i for i, (a, b) in enumerate(pairs) if a != b), len(ours))
        print(f"{same} of {len(ours)} tokens alike after {prompt!r}")
        print("   ", tokenizer.decode(ours))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=data.WORK)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("storyteller.gguf"))
    parser.add_argument("--average", action="store_true")
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    model, state = load_checkpoint(args.work / "run" / "checkpoint.pt", args.average)
    tokenizer = data.load_tokenizer(args.work / "data")
    step, _, _, seen, *_ = state["progress"]
    note = f"{seen / 1e6:.0f} million tokens seen"
    if state["start"]:
        note += f" after a start from {state['start']}"
    write_gguf(model, tokenizer, args.out, note + ".")
    print(f"{args.out}: {args.out.stat().st_size:,} bytes, step {step}, {note}")
    if args.check:
        check(args.out, tokenizer)


if __name__ == "__main__":
    main()
