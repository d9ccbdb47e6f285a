"""Good models and tokenizers of every format, whose files tests/damaged.py damages."""

from __future__ import annotations

import base64
import io
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fireside.engine import FiresideError, chat
from fireside.engine.architectures import gemma3
from fireside.engine.checkpoints import gguf_writer, open_checkpoint
from fireside.engine.checkpoints.bpe import Bpe, Bytes, Split
from fireside.engine.checkpoints.gguf_pretokenizers import GPT2
from fireside.engine.checkpoints.hf import split
from fireside.engine.checkpoints.types import CONTROL, NORMAL, Checkpoint, Tensor, Vocabulary
from fireside.engine.config import ModelConfig
from fireside.engine.errors import CheckpointError
from fireside.engine.tokenizers import from_vocabulary, read_vocabulary
from fireside.engine.tokenizers.steps import CHARACTERS
from tests.hf_files import llama_config, llama_tensors, safetensors
from tests.model_files import (
    ggml_legacy,
    gguf_file,
    llama2c,
    sentencepiece_model,
    small_vocabulary,
    tokenizer_bin,
)
from tests.models import ARCHITECTURES, random_checkpoint
from tests.torch_files import Emitter, llama2c_training, meta_state, save, save_legacy, zipped

TEXT = "Once upon a time, été 猫 \n"

VOCABULARY = small_vocabulary()
# dim, hidden, layers, heads, kv heads, vocab, context, head_dim
PLAIN = ModelConfig("llama", 8, 10, 2, 4, 2, 6, 5, 2)
TELLING = replace(PLAIN, vocab_size=len(VOCABULARY), dim=32, n_heads=2, head_dim=16)
HALF = replace(TELLING, rope_style="half", norm_eps=1e-6)
TEMPLATE = "{% for m in messages %}{{ '<s>' + m.role + m.content | trim }}{% endfor %}"
SPECIALS = ("<s>", "</s>", "<|im_end|>")

Files = Mapping[str, bytes]


@dataclass(frozen=True)
class Sample:
    """A good model or tokenizer.

    data: the file that is damaged, mostly in one of `places`; files: what is in the folder with a
    damaged copy of it; opened: what of that is opened, "" is the folder.
    """

    data: bytes
    places: tuple[tuple[int, int], ...]
    files: Callable[[bytes], Files]
    opened: str
    use: Callable[[Path], None]
    share: int = 1  # of so many copies one is made: a large file takes its time


# ---- what is done with what opens


def use_checkpoint(path: Path) -> None:
    """Everything that a loader does with a model."""
    checkpoint = open_checkpoint(path)
    whole = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    if "-of-" in path.name or path.suffix in (".json", ".pth"):
        whole = list(path.parent.iterdir())
    assert checkpoint.nbytes <= sum(p.stat().st_size for p in whole)
    assert checkpoint.name.isprintable()
    for tensor in checkpoint.tensors.values():
        assert tensor.to_float32().shape == tensor.shape
    if checkpoint.vocabulary is not None:
        assert len(checkpoint.vocabulary) == checkpoint.config.vocab_size
        tell(checkpoint.vocabulary)


def use_tokenizer(path: Path) -> None:
    """Read a vocabulary and use it."""
    tell(read_vocabulary(path))


def tell(vocabulary: Vocabulary) -> None:
    """Tokenise, take apart, hold a conversation."""
    tokenizer = from_vocabulary(vocabulary)
    ids = tokenizer.encode(TEXT)
    assert all(0 <= i < len(vocabulary) for i in ids if i != -1)
    tokenizer.decode([i for i in ids if i >= 0])
    tokenizer.decode(list(range(len(vocabulary))))
    assert all(0 <= i < len(vocabulary) for i in tokenizer.end_ids)
    talk = [chat.Message("user", TEXT)]
    try:
        chat.prompt(chat.choose(vocabulary), talk, tokenizer)
        refusal = None
    except FiresideError as error:
        refusal = error
    assert not isinstance(refusal, CheckpointError)
    assert str(refusal).isprintable()


# ---- samples


def byte_vocabulary() -> Vocabulary:
    """A byte-level one, with a few merges and a template."""
    pieces = (*CHARACTERS, "ab", "abc", *SPECIALS)
    types = np.array([NORMAL] * 258 + [CONTROL] * len(SPECIALS), np.int32)
    bpe = Bpe(("a b", "ab c"), (), (Split(GPT2), Bytes()))
    scores = np.zeros(len(pieces), np.float32)
    return Vocabulary(
        "bpe", pieces, scores, types, 258, 259, -1, False, False, (260,), bpe=bpe,
        chat_template=TEMPLATE,
    )  # fmt: skip


def tokenizer_json() -> dict[str, Any]:
    """The same as a Hugging Face's file."""
    added = {
        "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
        "special": True,
    }  # fmt: skip
    level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": True,
    }
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": 258 + i, "content": s, **added} for i, s in enumerate(SPECIALS)],
        "normalizer": {"type": "NFC"}, "pre_tokenizer": level,
        "post_processor": {"type": "ByteLevel", "trim_offsets": True, "use_regex": True,
                           "add_prefix_space": False},
        "decoder": level,
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
            "vocab": {piece: i for i, piece in enumerate((*CHARACTERS, "ab", "abc"))},
            "merges": ["a b", "ab c"],
        },
    }  # fmt: skip


def alone(data: bytes, header: int, use: Callable[[Path], None] = use_checkpoint) -> Sample:
    """One file."""
    return Sample(data, ((0, header),), lambda damaged: {"file": damaged}, "file", use)


def within(
    files: Files, name: str, places: tuple[tuple[int, int], ...] = (), opened: str = ""
) -> Sample:
    """One file among others."""
    data = files[name]
    where = places or ((0, len(data)),)
    return Sample(data, where, lambda damaged: {**files, name: damaged}, opened, use_checkpoint)


def gguf_samples() -> Iterator[tuple[str, Sample]]:
    """GGUF in one file and in parts, with vocabularies of both kinds, of several architectures."""
    carrying = replace(random_checkpoint(TELLING, 3, "Q8_0"), vocabulary=VOCABULARY, name="whole")
    metadata = {"x.list": ["a", "b"], "x.numbers": np.arange(3), "x.no": False, "x.low": -1}
    yield "GGUF", alone(*gguf_file(carrying, metadata))
    yield "GGUF without a vocabulary", alone(*gguf_file(random_checkpoint(PLAIN, 1)))
    alone_in_it = gguf_file(replace(carrying, tensors={}), metadata)
    yield "GGUF vocabulary", alone(*alone_in_it, use_tokenizer)
    spoken = byte_vocabulary()
    config = replace(TELLING, vocab_size=len(spoken))
    level = replace(random_checkpoint(config, 3), vocabulary=spoken)
    yield "GGUF, byte-level", alone(*gguf_file(level))
    for name in ("gemma3", "phi3-long", "stablelm-12b", "qwen3moe"):
        small = replace(ARCHITECTURES[name], vocab_size=6)
        model = random_checkpoint(small, 2)
        ropes = gguf_writer.rope_tensors(small)
        yield f"GGUF, {name}", alone(*gguf_file(replace(model, tensors={**model.tensors, **ropes})))
    yield "GGUF, experts apart", alone(*gguf_file(experts_apart()))
    parts = gguf_parts()
    for i, name in enumerate(parts):
        header = parts[name].index(b"output_norm" if i else b"blk.0.attn_q") + 200
        yield f"GGUF part {i + 1}", within(parts, name, ((0, header),), next(iter(parts)))


def experts_apart() -> Checkpoint:
    """A tensor for each expert, as in files of early 2024."""
    whole = random_checkpoint(replace(ARCHITECTURES["mixtral"], vocab_size=6, n_layers=1), 7)
    tensors = dict(whole.tensors)
    for name in [name for name in tensors if "_exps" in name]:
        stack = tensors.pop(name)
        for i, part in enumerate(np.split(stack.data, stack.shape[0])):
            one = name.replace("_exps", f".{i}")
            tensors[one] = Tensor(one, stack.shape[1:], stack.block, part)
    return replace(whole, tensors=tensors)


def gguf_parts() -> dict[str, bytes]:
    """A model in two files."""
    model = random_checkpoint(TELLING, 3)
    names = list(model.tensors)
    result = {}
    for i, own in enumerate((names[:9], names[9:])):
        part = replace(model, tensors={name: model.tensors[name] for name in own})
        split = {"split.no": i, "split.count": 2, "split.tensors.count": len(names)}
        part = replace(part, vocabulary=None if i else VOCABULARY)
        result[f"m-0000{i + 1}-of-00002.gguf"] = gguf_file(part, split)[0]
    return result


def older_samples() -> Iterator[tuple[str, Sample]]:
    """llama2.c's files, and ggml's of before GGUF."""
    tied, untied = random_checkpoint(PLAIN, 1), random_checkpoint(PLAIN, 2, tied=False)
    yield "llama2.c v0", alone(llama2c(tied, 0), 28)
    yield "llama2.c v0 untied", alone(llama2c(untied, 0), 28)
    yield "llama2.c v1", alone(llama2c(tied, 1), 41)
    yield "llama2.c v2", alone(llama2c(tied, 2, 4), 41)
    for kind in ("ggml", "ggmf 1", "ggjt 1", "ggjt 2", "ggjt 3"):
        block = "F32" if kind < "ggjt 0" or kind.startswith("ggm") else "Q4_0"
        model = random_checkpoint(TELLING, 4, block, tied=False)
        yield kind, alone(ggml_legacy(replace(model, vocabulary=VOCABULARY), kind), 6000)


def torch_samples() -> Iterator[tuple[str, Sample]]:
    """Files of torch: as an archive, damaged before and after it was packed, unpacked, legacy."""
    small = random_checkpoint(replace(PLAIN, n_layers=1), 1)
    value = llama2c_training(small)
    archive, legacy = save(value), save_legacy(value)
    signs = (b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06")
    headers = tuple((i, i + 60) for i in range(len(archive)) if archive[i : i + 4] in signs)
    yield ".pt", replace(alone(archive, 0), places=headers)
    yield ".pt of before 1.6", alone(legacy, legacy.rindex(b"norm.weight"))
    emitter = Emitter()
    pickled = emitter.pickle(value)
    inside = {f"data/{key}": numbers for key, numbers, _ in emitter.storages}

    def packed(damaged: bytes) -> Files:
        members = {"data.pkl": damaged, **inside}
        return {"file": zipped({f"x/{name}": content for name, content in members.items()})}

    yield ".pt, its pickle", Sample(pickled, ((0, len(pickled)),), packed, "file", use_checkpoint)
    folder = {"data.pkl": pickled, **inside, "byteorder": b"little"}
    for name in ("data.pkl", "data/0", "byteorder"):
        yield f".pt unpacked, {name}", within(folder, name)
    yield from meta_samples()


def meta_samples() -> Iterator[tuple[str, Sample]]:
    """Meta's folder in two shards."""
    model = random_checkpoint(TELLING, 6, tied=False)
    sizes = {"dim": 32, "n_layers": 2, "n_heads": 2, "n_kv_heads": 2, "norm_eps": 1e-5}
    params = {**sizes, "vocab_size": -1, "multiple_of": 2, "rope_theta": 1e4, "max_seq_len": 64}
    files = {
        "params.json": json.dumps(params).encode(),
        "tokenizer.model": sentencepiece_model(VOCABULARY),
    }
    for shard in range(2):
        state: dict[str, object] = {}
        for name, stored in meta_state(model).items():
            columns = name.endswith(("wo.weight", "w2.weight")) or name.startswith("tok_")
            if stored.values.ndim == 2:
                half = np.split(stored.values, 2, axis=int(columns))[shard]
                stored = replace(stored, values=np.ascontiguousarray(half))
            state[name] = stored
        files[f"consolidated.0{shard}.pth"] = save(state, "consolidated")
    for name in files:
        yield f"Meta, {name}", within(files, name)
    apart = {name: content for name, content in files.items() if not name.endswith("01.pth")}
    with zipfile.ZipFile(io.BytesIO(files["consolidated.01.pth"])) as archive:
        for name in archive.namelist():
            apart[name.replace("consolidated/", "consolidated.01/")] = archive.read(name)
    yield "Meta unpacked", within(apart, "consolidated.01/data.pkl")


def folder_samples() -> Iterator[tuple[str, Sample]]:
    """Hugging Face's folders."""
    vocabulary = byte_vocabulary()
    model = random_checkpoint(replace(HALF, vocab_size=len(vocabulary)), 3)
    weights, header = safetensors(llama_tensors(model))
    files = {
        "config.json": json.dumps(llama_config(model)).encode(),
        "model.safetensors": weights,
        "tokenizer.json": json.dumps(tokenizer_json()).encode(),
        "tokenizer_config.json": json.dumps(
            {"bos_token": "<s>", "eos_token": {"content": "</s>"}, "chat_template": TEMPLATE,
             "add_bos_token": True, "added_tokens_decoder": {"258": {"content": "<s>"}}}
        ).encode(),
        "generation_config.json": b'{"eos_token_id": [259, 260], "temperature": 0.7}',
        "chat_template.jinja": TEMPLATE.encode(),
    }  # fmt: skip
    for name in files:
        places = ((0, header),) if name == "model.safetensors" else ()
        yield f"Hugging Face, {name}", within(files, name, places)
    yield "Hugging Face, config.json of Gemma 3", within({**files, **gemma()}, "config.json")
    spoken = random_checkpoint(HALF, 3)
    spm = {
        **files, "config.json": json.dumps(llama_config(spoken)).encode(),
        "model.safetensors": safetensors(llama_tensors(spoken))[0],
        "tokenizer.model": sentencepiece_model(VOCABULARY),
    }  # fmt: skip
    del spm["tokenizer.json"]
    yield "Hugging Face, tokenizer.model", within(spm, "tokenizer.model")
    yield from shards(files, model)


def gemma() -> Files:
    """A model whose config.json has sections and lists."""
    rope = {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6}
    said = {
        "model_type": "gemma3_text", "hidden_size": 32, "intermediate_size": 10,
        "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16,
        "vocab_size": 261, "sliding_window": 8, "max_position_embeddings": 64,
        "layer_types": ["sliding_attention", "full_attention"],
        "rope_parameters": {"full_attention": rope, "sliding_attention": {"rope_type": "default"}},
    }  # fmt: skip
    config = replace(
        ARCHITECTURES["gemma3"], dim=32, hidden_dim=10, n_layers=2, n_heads=2, n_kv_heads=2,
        vocab_size=261, windowed_layers=(True, False),
    )  # fmt: skip
    tensors = {}
    for gguf, tensor in random_checkpoint(config, 3).tensors.items():
        layer, key = split(gguf)
        tensors["model." + gemma3.NAMES[key].replace("{}", layer)] = tensor
    weights = safetensors(tensors)[0]
    return {"config.json": json.dumps(said).encode(), "model.safetensors": weights}


def shards(files: Files, model: Checkpoint) -> Iterator[tuple[str, Sample]]:
    """Weights in two files with an index, and in torch's."""
    tensors = llama_tensors(model)
    rest = {k: v for k, v in files.items() if k != "model.safetensors"}
    table: dict[str, str] = {}
    for i in range(2):
        name = f"model-0000{i + 1}-of-00002.safetensors"
        own = {key: tensors[key] for key in list(tensors)[i::2]}
        rest[name] = safetensors(own)[0]
        table |= dict.fromkeys(own, name)
    rest["model.safetensors.index.json"] = json.dumps({"weight_map": table}).encode()
    for name in ("model.safetensors.index.json", "model-00002-of-00002.safetensors"):
        yield f"Hugging Face, {name}", within(rest, name, ((0, min(900, len(rest[name]))),))
    state = {name: _stored(tensor) for name, tensor in tensors.items()}
    torch = {k: v for k, v in files.items() if k != "model.safetensors"}
    torch["pytorch_model.bin"] = save(state)
    yield "Hugging Face, pytorch_model.bin", within(torch, "pytorch_model.bin")


def _stored(tensor: Tensor) -> object:
    from tests.torch_files import Stored

    return Stored(tensor.to_float32())


def tokenizer_samples() -> Iterator[tuple[str, Sample]]:
    """Tokenizers alone."""
    pieces = sentencepiece_model(VOCABULARY)
    yield "tokenizer.bin", alone(tokenizer_bin(VOCABULARY), 200, use_tokenizer)
    yield "tokenizer.model", alone(pieces, len(pieces), use_tokenizer)
    text = json.dumps(tokenizer_json()).encode()
    yield "tokenizer.json", alone(text, len(text), use_tokenizer)
    ranks = [bytes([i]) for i in range(256)] + [b"th", b"the"]
    ranks += [b"\xff%d" % i for i in range(128_000 - len(ranks))]
    lines = b"".join(base64.b64encode(raw) + b" %d\n" % i for i, raw in enumerate(ranks))
    yield "tiktoken's", replace(alone(lines, 9000, use_tokenizer), share=50)


def samples() -> dict[str, Sample]:
    """All of them, by name."""
    makers = (gguf_samples, older_samples, torch_samples, folder_samples, tokenizer_samples)
    return {name: sample for make in makers for name, sample in make()}
