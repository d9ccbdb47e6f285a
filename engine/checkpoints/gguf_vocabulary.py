"""The tokenizer in GGUF's metadata: `tokenizer.ggml.*`. (ggml, docs/gguf.md)

Two kinds are read: "llama" is SPM, pieces with scores; "gpt2" is BPE, pieces with merges and the
name of a recipe for cutting texts (gguf_pretokenizers.py).
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path

from fireside.engine.arrays import np
from fireside.engine.checkpoints.gguf_fields import Fields
from fireside.engine.checkpoints.gguf_header import show
from fireside.engine.checkpoints.types import (
    CONTROL,
    NORMAL,
    USER_DEFINED,
    Numbers,
    Vocabulary,
    ids_of,
)
from fireside.engine.errors import CheckpointError, UnsupportedError
from fireside.engine.hints import TYPE_CHECKING

if TYPE_CHECKING:
    pass

# Pieces that end a text in some model or other, where the file does not say so itself.
END_PIECES = frozenset(
    ("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end|>", "<|end_of_text|>", "<|endoftext|>",
     "<end_of_turn>", "<end_of_utterance>", "<EOT>", "[EOT]", "<｜end▁of▁sentence｜>",
     "<|END_OF_TURN_TOKEN|>", "<|return|>", "<|endofturn|>")
)  # fmt: skip
NO_TOKEN = 0xFFFFFFFF  # -1, as some converters write it
KINDS = {"llama": "SPM", "gpt2": "BPE"}


def read_vocabulary(path: Path, metadata: Mapping[str, object]) -> Vocabulary | None:
    """The vocabulary in the metadata; None where there is no tokenizer.

    UnsupportedError for tokenizers of other kinds.
    """
    fields = Fields(path, metadata)
    kind = fields.string("tokenizer.ggml.model", "none")
    if kind in ("none", "no_vocab"):
        return None
    if kind not in KINDS:
        known = " and ".join(f"{name!r} ({what})" for name, what in KINDS.items())
        raise UnsupportedError(
            f"{path}: tokenizer.ggml.model is {show(kind)}", f"this version reads {known}"
        )
    tokens = fields.strings("tokenizer.ggml.tokens")
    if not tokens:
        raise CheckpointError(f"{path}: tokenizer.ggml.tokens is missing or empty")
    pieces = tokens.pieces()
    types = read_types(fields, len(pieces))
    for i in ids_of(types, USER_DEFINED):
        if pieces[i] in END_PIECES:  # some converters call it so; as a text it must not end one
            types[i] = CONTROL
    if kind == "llama":
        return read_spm(fields, pieces, types)
    return read_bpe(fields, pieces, types)


def read_types(fields: Fields, count: int) -> array[int]:
    """The type of each piece, in a byte; all are normal where the file does not say."""
    found = fields.array("tokenizer.ggml.token_type", count, "bBhHiIqQ")
    if found is None:
        return array("B", bytes([NORMAL]) * count)
    data, size = found.tobytes(), found.itemsize  # the file's are little-endian, as we are
    types = data[::size]
    beyond = types.translate(None, bytes(range(7)))
    if beyond or any(any(data[i::size]) for i in range(1, size)):
        raise CheckpointError(
            f"{fields.path}: tokenizer.ggml.token_type holds a number beyond 0 to 6"
        )
    return array("B", types)


def special_id(fields: Fields, name: str, default: int, count: int) -> int:
    """The id of a special token; -1 where there is none."""
    key = f"tokenizer.ggml.{name}_token_id"
    value = fields.metadata.get(key)
    if isinstance(value, int) and value in (NO_TOKEN, -1):
        return -1
    return fields.integer(key, min(default, count - 1), -1, count - 1)


def further_ends(
    fields: Fields, pieces: Sequence[str], types: Numbers, eos_id: int
) -> tuple[int, ...]:
    """Ids that end a text, beside `eos_id`."""
    ends = {special_id(fields, name, -1, len(pieces)) for name in ("eot", "eom")}
    for i in ids_of(types, CONTROL, USER_DEFINED):
        if pieces[i] in END_PIECES:
            ends.add(i)
    return tuple(sorted(ends - {-1, eos_id}))


def chat_template(fields: Fields) -> str | None:
    """The model's own template for conversations, if the file holds one."""
    value = fields.metadata.get("tokenizer.chat_template")
    return value if isinstance(value, str) and value else None


def read_spm(fields: Fields, pieces: Sequence[str], types: Numbers) -> Vocabulary:
    """A vocabulary of pieces with scores."""
    path, count = fields.path, len(pieces)
    scores = fields.array("tokenizer.ggml.scores", count, "fd")
    if scores is None:
        raise CheckpointError(f"{path}: tokenizer.ggml.scores is missing")
    if scores != scores[:]:  # what is not a number does not equal itself
        raise CheckpointError(f"{path}: tokenizer.ggml.scores holds what is not a number")
    eos_id, bos_id = special_id(fields, "eos", 2, count), special_id(fields, "bos", 1, count)
    return Vocabulary(
        kind="spm",
        pieces=pieces,
        scores=scores if scores.format == "f" else array("f", scores),
        types=types,
        bos_id=bos_id,
        eos_id=eos_id,
        unk_id=special_id(fields, "unknown", 0, count),
        add_bos=fields.boolean("tokenizer.ggml.add_bos_token", True) and bos_id >= 0,
        add_space_prefix=fields.boolean("tokenizer.ggml.add_space_prefix", True),
        end_ids=further_ends(fields, pieces, types, eos_id),
        remove_extra_whitespaces=fields.boolean("tokenizer.ggml.remove_extra_whitespaces", False),
        chat_template=chat_template(fields),
    )


def read_bpe(fields: Fields, pieces: Sequence[str], types: Numbers) -> Vocabulary:
    """A vocabulary of pieces with merges; they are bytes, written as characters."""
    from fireside.engine.checkpoints.bpe import Bpe  # here: SPM's vocabularies need none of it
    from fireside.engine.checkpoints.gguf_pretokenizers import RECIPES

    path, count = fields.path, len(pieces)
    name = fields.string("tokenizer.ggml.pre", "default")
    if name not in RECIPES:
        raise UnsupportedError(
            f"{path}: tokenizer.ggml.pre is {show(name)}, a way to cut texts that is not known",
            "this version knows those of Llama 3, Qwen, Mistral, SmolLM, GPT-2 and others;"
            " --tokenizer can name the model's tokenizer.json instead",
        )
    recipe = RECIPES[name]
    merges = fields.strings("tokenizer.ggml.merges")
    if merges is None:
        raise CheckpointError(f"{path}: tokenizer.ggml.merges is missing")
    eos_id, bos_id = special_id(fields, "eos", -1, count), special_id(fields, "bos", -1, count)
    add_bos = fields.boolean("tokenizer.ggml.add_bos_token", recipe.add_bos)
    return Vocabulary(
        kind="bpe",
        pieces=pieces,
        scores=array("f", bytes(4 * count)),
        types=types,
        bos_id=bos_id,
        eos_id=eos_id,
        unk_id=special_id(fields, "unknown", -1, count),
        add_bos=add_bos and bos_id >= 0,
        add_space_prefix=False,
        end_ids=further_ends(fields, pieces, types, eos_id),
        bpe=Bpe(merges, (), recipe.steps, ignore_merges=recipe.ignore_merges),
        chat_template=chat_template(fields),
    )


def describe_vocabulary(v: Vocabulary) -> dict[str, object]:
    """The entries `tokenizer.ggml.*` for a vocabulary. UnsupportedError for what GGUF lacks."""
    special = {"bos": v.bos_id, "eos": v.eos_id, "unknown": v.unk_id}
    # those that a reader knows by their name need no entry of their own
    kinds = (CONTROL, USER_DEFINED)
    ends = [i for i in v.end_ids if not (v.pieces[i] in END_PIECES and v.types[i] in kinds)]
    if len(ends) > 2:
        raise UnsupportedError(f"{len(ends)} tokens that end a text: GGUF holds eos, eot and eom")
    special |= dict(zip(("eot", "eom"), ends, strict=False))
    return {
        **(describe_spm(v) if v.kind == "spm" else describe_bpe(v)),
        "tokenizer.ggml.tokens": list(v.pieces),
        "tokenizer.ggml.token_type": np.asarray(v.types).astype("<i4"),
        **{
            f"tokenizer.ggml.{key}_token_id": i if i >= 0 else NO_TOKEN
            for key, i in special.items()
        },
        "tokenizer.ggml.add_bos_token": v.add_bos,
        **({"tokenizer.chat_template": v.chat_template} if v.chat_template else {}),
    }


def describe_spm(v: Vocabulary) -> dict[str, object]:
    """What only SPM vocabularies have."""
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.scores": np.asarray(v.scores).astype("<f4"),
        "tokenizer.ggml.add_space_prefix": v.add_space_prefix,
        "tokenizer.ggml.remove_extra_whitespaces": v.remove_extra_whitespaces,
    }


def describe_bpe(v: Vocabulary) -> dict[str, object]:
    """What only BPE vocabularies have; GGUF holds those whose way to cut texts has a name."""
    from fireside.engine.checkpoints.bpe import Normalize
    from fireside.engine.checkpoints.gguf_pretokenizers import name_of

    bpe = v.bpe
    assert bpe is not None
    # NFC is left out by GGUF's readers: most texts are in that form already
    plain = bpe.normalizers in ((), (Normalize("NFC"),))
    name = name_of(bpe.pre_tokenizers, bpe.ignore_merges) if plain else None
    if name is None or bpe.merges is None or bpe.separator != " ":
        raise UnsupportedError(
            "GGUF has no name for the way in which this tokenizer cuts texts",
            "use the model in the format it has",
        )
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": name,
        "tokenizer.ggml.merges": list(bpe.merges),
    }
