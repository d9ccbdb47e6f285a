"""Thousands of damaged files, opened in a process that is watched.

    python -m tests.damaged FOLDER COUNT SAMPLE...

Each sample is a good model or tokenizer, and one file of it to damage. Every damaged copy opens and
is sound, or is refused by a CheckpointError: in a second, in 200 MB, without any other exception or
warning, with no program run, nothing written and nothing read but the files of the model.
"""

from __future__ import annotations

import base64
import io
import json
import random
import struct
import sys
import time
import warnings
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

SECONDS = 1.0
MEMORY = 200 << 20
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


# ---- damage

INT32 = (0, 1, -1, 2, 7, 255, 65536, 2**31 - 1, -(2**31), 2**30)
INT64 = (0, 1, 2**16, 2**31, 2**32 + 1, 2**40, 2**61, 2**63, 2**64 - 1, 2**64 - 32)
ODD: tuple[object, ...] = (
    None, True, -1, 0, 1, 2**31, 2**70, 1e308, -0.5, "", "x", "\x1b[2J", "../../etc/passwd", "\0",
    "\ud800", [], {}, [[]], [None] * 3, {"a": {"a": {}}}, "é" * 9999,
)  # fmt: skip


def damaged(sample: Sample, count: int, name: str) -> Iterator[bytes]:
    """`count` damaged copies of a sample's file, the same every time."""
    rng = random.Random(name)
    data = sample.data
    for i in range(count):
        if i % 8 == 0:
            yield data[: rng.randrange(len(data) + 1)]
        elif i % 40 == 1:
            yield data + rng.choice((b"\0", b"\0" * 32, bytes(4096), b"\xff" * 7, data))
        elif i % 2 and data[:2] == b'{"':
            yield changed_json(data, rng)
        else:
            yield changed_bytes(data, rng.choice(sample.places), rng)


def changed_json(data: bytes, rng: random.Random) -> bytes:
    """A value in it is another one; now and then a key is there twice, or nested without end."""
    value = json.loads(data)
    place: Any = value
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = rng.choice(keys)
        inner = place[key]
        if not isinstance(inner, dict | list) or not inner or rng.random() < 0.3:
            break
        place = inner
    kind = rng.randrange(12)
    if kind == 0:
        del place[key]
    else:
        place[key] = "@" if kind < 3 else rng.choice(ODD)
    text = json.dumps(value).encode()
    if kind == 1:
        return text.replace(b'"@"', b"[" * 50_000, 1)
    if kind == 2:
        return b'{"a": 1, "a": 2, ' + text[1:].replace(b'"@"', b"9" * 5000, 1)
    return text


def changed_bytes(data: bytes, place: tuple[int, int], rng: random.Random) -> bytes:
    """Some bytes within `place`, or after it, are others."""
    changed = bytearray(data)
    first, last = place
    at = rng.randrange(first, max(first + 1, min(last, len(data))))
    kind = rng.randrange(7)
    if kind == 0:  # one bit
        changed[at] ^= 1 << rng.randrange(8)
    elif kind == 1:  # some bits
        for _ in range(rng.randrange(2, 20)):
            changed[rng.randrange(first, min(last, len(data)) or 1)] ^= 1 << rng.randrange(8)
    elif kind == 2 and len(data) >= 4:
        struct.pack_into("<i", changed, min(at, len(data) - 4), rng.choice(INT32))
    elif kind == 3 and len(data) >= 8:
        struct.pack_into("<Q", changed, min(at, len(data) - 8), rng.choice(INT64))
    elif kind == 4:  # bytes lost
        del changed[at : at + rng.choice((1, 2, 4, 8, 31))]
    elif kind == 5:  # bytes that were not there
        changed[at:at] = rng.randbytes(rng.choice((1, 2, 4, 8, 31)))
    else:  # a part of the file in the place of another
        source = rng.randrange(len(data))
        length = rng.randrange(1, 64)
        changed[at : at + length] = data[source : source + length]
    return bytes(changed)


# ---- the watch

RUNS = (
    "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "socket.",
    "ctypes.", "pickle.", "webbrowser.", "os.remove", "os.rename", "os.mkdir",
    "os.rmdir", "os.symlink", "os.link", "os.truncate", "os.chmod", "os.chown", "os.putenv",
    "shutil.", "sys.setprofile",
)  # fmt: skip


class Watch:
    """Raises where the program does what no file may make it do."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)
        self.on = False
        sys.addaudithook(self.see)

    def see(self, event: str, arguments: tuple[Any, ...]) -> None:
        """An audit hook, for good."""
        if not self.on:
            return
        if event.startswith(RUNS):
            self.on = False
            raise AssertionError(f"{event} {arguments!r:.200}")
        if event == "open":
            path, mode, flags = arguments
            writes = (isinstance(mode, str) and set(mode) & set("wax+")) or flags & 3
            program = str(path).endswith((".py", ".pyc", ".so"))  # what is imported late
            if writes or not (program or str(path).startswith(self.folder)):
                self.on = False
                raise AssertionError(f"opens {path!r:.200}, {mode}, {flags}")


def limit_memory() -> None:
    """This process gets no more than it has, and MEMORY."""
    import resource

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def peak() -> int:
    """Bytes of memory that this process ever had. Not ru_maxrss: that counts its parent's too."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) << 10


def write(folder: Path, files: Files) -> None:
    """The files of a sample."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def check(sample: Sample, folder: Path, data: bytes, watch: Watch) -> tuple[bool, float]:
    """Whether a damaged copy opens, and the seconds of computing that took."""
    write(folder, sample.files(data))
    path = folder / sample.opened if sample.opened else folder
    start = time.process_time()
    watch.on = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            sample.use(path)
        opened, error = True, ""
    except CheckpointError as refusal:
        opened, error = False, str(refusal)
    finally:
        watch.on = False
    seconds = time.process_time() - start
    assert opened or str(folder) in error, error
    assert error.isprintable(), ascii(error)
    assert len(error) < 1000 + len(str(folder)) * 2, error
    return opened, seconds


def run(name: str, sample: Sample, folder: Path, count: int, watch: Watch) -> dict[str, object]:
    """All damaged copies of one sample."""
    folder.mkdir()
    whole, _ = check(sample, folder, sample.data, watch)
    refused, slowest = 0, 0.0
    for i, data in enumerate(damaged(sample, count // sample.share, name)):
        try:
            opened, seconds = check(sample, folder, data, watch)
            assert seconds < SECONDS, f"{seconds:.2f} s"
        except BaseException:
            print(f"{name}: damaged copy {i}", file=sys.stderr)
            raise
        refused += not opened
        slowest = max(slowest, seconds)
    return {"name": name, "whole": whole, "refused": refused, "seconds": round(slowest, 3)}


def main(place: Path, count: int, names: list[str]) -> None:
    """Prints a line of JSON for each sample."""
    sys.dont_write_bytecode = True
    all_of_them = samples()
    warm_up(place)
    watch = Watch(place)
    limit_memory()
    before = peak()
    for i, name in enumerate(names):
        result = run(name, all_of_them[name], place / str(i), count, watch)
        print(json.dumps({**result, "megabytes": (peak() - before) >> 20}), flush=True)


def warm_up(place: Path) -> None:
    """What is imported when it is first used is imported now: that opens files."""
    folder = place / "warm"
    folder.mkdir()
    for name in (
        "Hugging Face, config.json",
        "Meta, params.json",
        ".pt",
        "GGUF, byte-level",
        "ggjt 1",
    ):
        sample = samples()[name]
        write(folder, sample.files(sample.data))
        try:
            sample.use(folder / sample.opened)
        except CheckpointError:
            continue


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
