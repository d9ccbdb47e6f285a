"""Hugging Face's `tokenizer.json` with a BPE model, and the small files beside it.

(huggingface/tokenizers; the types of steps are those of its serialisation. huggingface/transformers
for tokenizer_config.json, generation_config.json and chat_template.jinja.)
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from fireside.engine.checkpoints import json_files, read_file
from fireside.engine.checkpoints.bpe import AddedToken, Bpe, Bytes, PrefixSpace
from fireside.engine.checkpoints.gguf_vocabulary import END_PIECES
from fireside.engine.checkpoints.types import (
    BYTE,
    CONTROL,
    NORMAL,
    UNUSED,
    USER_DEFINED,
    Vocabulary,
)
from fireside.engine.errors import CheckpointError, UnsupportedError
from fireside.engine.tokenizers.base import SURROGATES
from fireside.engine.tokenizers.hugging_face_steps import (
    read_decoder,
    read_normalizers,
    read_pre_tokenizers,
)
from fireside.engine.tokenizers.json_view import View
from fireside.engine.tokenizers.spm import BYTE_PIECE
from fireside.engine.tokenizers.steps import compile_normalizers, compile_steps

MAX_FILE = 1 << 26  # bytes of a tokenizer.json (Gemma 3's has 33 million)
MAX_CONFIG = 1 << 24
MAX_TOKENS = 1 << 20
MAX_VALUES = 3_000_000  # Gemma 3's has two million
SEPARATORS = (" ", "\0", "\ue000", "\uf8ff")  # between the halves of a merge
END_NAMES = ("</s>", "<eos>", "<|endoftext|>", "<|end_of_text|>")  # where no file names one


def read_json(path: Path, limit: int, values: int = json_files.MAX_VALUES) -> View:
    """The object in a JSON file; CheckpointError where there is none, or more than that."""
    data = read_file(path, limit)
    if (count := json_files.values_in(data)) > values or data.count(b":") > MAX_TOKENS:
        raise CheckpointError(f"{path}: some {count:,} values, expected at most {values:,}")
    try:
        value = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise CheckpointError(
            f"{path}: not sound JSON: {reason[:100]}", "download or copy it again"
        ) from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: a JSON object is expected")
    return View(path, "", value)


def read(path: Path) -> Vocabulary:
    """The vocabulary of a tokenizer.json, with what the files beside it say.

    UnsupportedError for models other than BPE and for steps that are not known, by name.
    """
    file = read_json(path, MAX_FILE, MAX_VALUES)
    model = file.view("model")
    kind = model.text("type", "BPE")
    if kind != "BPE":
        raise UnsupportedError(
            f"{path}: a tokenizer of type {kind[:40]!r}", "this version reads BPE"
        )
    refuse_variants(model)
    pieces, types = read_pieces(model)
    added = read_added(file, pieces, types)
    table = {piece: i for i, piece in pieces.items()}
    names = tuple(pieces.get(i, f"[PAD{i}]") for i in range(max(pieces) + 1))
    kinds = np.array([types.get(i, UNUSED) for i in range(len(names))], np.int32)
    merges, separator = read_merges(model, table)
    decoder = read_decoder(file)
    cuts = read_pre_tokenizers(file)
    word_space = decoder.word_space and not any(isinstance(step, Bytes) for step in cuts)
    bpe = Bpe(
        merges,
        read_normalizers(file),
        cuts,
        separator,
        ignore_merges=model.boolean("ignore_merges", False),
        byte_fallback=model.boolean("byte_fallback", False),
        fuse_unk=model.boolean("fuse_unk", False),
        space=decoder.space,
        word_space=word_space,
        added=added,
    )
    if bpe.byte_fallback:
        for i, name in enumerate(names):
            if kinds[i] == NORMAL and re.fullmatch(BYTE_PIECE, name):
                kinds[i] = BYTE
    check_steps(path, bpe)
    bos_id = read_bos(file, len(names))
    vocabulary = Vocabulary(
        kind="bpe",
        pieces=names,
        scores=np.zeros(len(names), np.float32),
        types=kinds,
        bos_id=bos_id,
        eos_id=next((table[name] for name in END_NAMES if name in table), -1),
        unk_id=table.get(model.text("unk_token", ""), -1),
        add_bos=bos_id >= 0,
        add_space_prefix=decoder.drops_space or word_space or PrefixSpace() in cuts,
        bpe=bpe,
    )
    return with_neighbours(vocabulary, path.parent)


def refuse_variants(model: View) -> None:
    """UnsupportedError for what would make other ids."""
    for key in ("continuing_subword_prefix", "end_of_word_suffix"):
        if model.text(key, ""):
            raise UnsupportedError(
                f"{model.path}: {model.where}{key} is {model.text(key, '')[:40]!r}",
                "this version reads vocabularies without",
            )
    if model.value.get("dropout"):
        raise UnsupportedError(f"{model.path}: a tokenizer that drops merges at random")


def read_pieces(model: View) -> tuple[dict[int, str], dict[int, int]]:
    """Pieces and types by id."""
    vocab = model.mapping("vocab")
    pieces: dict[int, str] = {}
    for piece, i in vocab.items():
        if type(i) is not int or not 0 <= i < MAX_TOKENS or i in pieces:
            raise CheckpointError(
                f"{model.path}: model.vocab gives {piece[:40]!r} the id {str(i)[:40]}, expected a"
                f" number of its own from 0 to {MAX_TOKENS - 1}"
            )
        pieces[i] = piece
    if not pieces:
        raise CheckpointError(f"{model.path}: model.vocab is empty")
    if re.search(SURROGATES, "".join(vocab)):
        raise CheckpointError(f"{model.path}: model.vocab holds half a character")
    return pieces, dict.fromkeys(pieces, NORMAL)


def read_added(
    file: View, pieces: dict[int, str], types: dict[int, int]
) -> tuple[tuple[int, AddedToken], ...]:
    """Enter the added tokens; those with rules of their own are returned."""
    rules: list[tuple[int, AddedToken]] = []
    texts: set[str] = set()
    for token in file.views("added_tokens"):
        i, content = token.integer("id", 0, MAX_TOKENS - 1), token.text("content")
        if pieces.setdefault(i, content) != content:
            raise CheckpointError(
                f"{file.path}: {token.where}id {i} is {content[:40]!r}, but in the vocabulary"
                f" {pieces[i][:40]!r}"
            )
        if content in texts:
            raise CheckpointError(f"{file.path}: {content[:40]!r} was added twice")
        texts.add(content)
        special = token.boolean("special", False)
        types[i] = CONTROL if special else USER_DEFINED
        rule = AddedToken(
            token.boolean("lstrip", False),
            token.boolean("rstrip", False),
            token.boolean("single_word", False),
            token.boolean("normalized", not special),
        )
        if not rule.plain:
            rules.append((i, rule))
    return tuple(rules)


def read_merges(model: View, table: Mapping[str, int]) -> tuple[list[str], str]:
    """Merges as "left right", and what stands between the halves.

    A file has them so, or as pairs, whose halves may hold spaces.
    """
    entries = model.items("merges")
    separator = " "
    if entries and isinstance(entries[0], list):
        everything = "".join(table)
        separator = next((s for s in SEPARATORS if s not in everything), "")
        if not separator:
            raise UnsupportedError(f"{model.path}: a vocabulary with every odd character")
    merges: list[str] = []
    for i, entry in enumerate(entries):
        left = right = ""
        if isinstance(entry, str):
            left, _, right = entry.partition(" ")
        elif isinstance(entry, list) and len(entry) == 2 and all(isinstance(h, str) for h in entry):
            left, right = entry
            entry = left + separator + right
        if not left or left not in table or right not in table or left + right not in table:
            raise CheckpointError(
                f"{model.path}: model.merges[{i}] is {str(entry)[:60]!r}, expected two pieces that"
                " together are one"
            )
        merges.append(entry)
    return merges, separator


def read_bos(file: View, count: int) -> int:
    """The token that the post-processor puts before a text; -1 for none.

    What it puts behind a text is left out: a story goes on.
    """
    if file.value.get("post_processor") is None:
        return -1
    found: list[int] = []
    pending = [file.view("post_processor")]
    while pending:
        processor = pending.pop()
        kind = processor.text("type")
        if kind == "Sequence":
            pending += reversed(processor.views("processors"))
        elif kind == "TemplateProcessing":
            tokens = processor.view("special_tokens")
            for item in processor.views("single"):
                if "SpecialToken" not in item.value:
                    break
                name = item.view("SpecialToken").text("id")
                ids = tokens.view(name).items("ids")
                found += [i for i in ids if type(i) is int and 0 <= i < count]
        elif kind != "ByteLevel":
            raise UnsupportedError(f"{file.path}: a post-processor of type {kind[:40]!r}")
    if len(found) > 1:
        raise UnsupportedError(f"{file.path}: {len(found)} tokens before every text")
    return found[0] if found else -1


def check_steps(path: Path, bpe: Bpe) -> None:
    """CheckpointError where a regular expression is none."""
    try:
        compile_normalizers(bpe.normalizers)
        compile_steps(bpe.pre_tokenizers)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error.message}", error.hint) from None


# -- the files beside it


def with_neighbours(vocabulary: Vocabulary, folder: Path) -> Vocabulary:
    """`vocabulary` with what the other files of a model's folder say of it."""
    v = vocabulary
    ids = {piece: i for i, piece in enumerate(v.pieces)}
    path = folder / "tokenizer_config.json"
    template: str | None = v.chat_template
    if path.is_file():
        config = read_json(path, MAX_CONFIG)
        bos_id = ids.get(token_name(config, "bos_token"), v.bos_id)
        eos_id = ids.get(token_name(config, "eos_token"), v.eos_id)
        add_bos = config.value.get("add_bos_token")
        wanted = add_bos if isinstance(add_bos, bool) else v.add_bos
        v = replace(v, bos_id=bos_id, eos_id=eos_id, add_bos=wanted and bos_id >= 0)
        template = template_of(config.value.get("chat_template")) or template
    path = folder / "chat_template.jinja"
    if path.is_file():
        template = (
            read_file(path, MAX_CONFIG).decode("utf-8", "replace") if path.stat().st_size else ""
        )
    ends = {i for name, i in ids.items() if name in END_PIECES and v.types[i] != NORMAL}
    ends |= generation_ends(folder, len(v))
    return replace(v, chat_template=template, end_ids=tuple(sorted(ends - {v.eos_id})))


def token_name(config: View, key: str) -> str:
    """The text of a special token: a string, or an object that holds one."""
    value = config.value.get(key)
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else ""


def template_of(value: object) -> str | None:
    """The chat template: a string, or the one named "default" of a list."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        for entry in value:
            if isinstance(entry, dict) and entry.get("name") == "default":
                return template_of(entry.get("template"))
    return None


def generation_ends(folder: Path, count: int) -> set[int]:
    """The ids that generation_config.json, or else config.json, says end a text."""
    for name in ("generation_config.json", "config.json"):
        if (folder / name).is_file():
            value = read_json(folder / name, MAX_CONFIG).value.get("eos_token_id")
            ids = value if isinstance(value, list) else [value]
            if found := {i for i in ids if type(i) is int and 0 <= i < count}:
                return found
    return set()


def pad(vocabulary: Vocabulary, count: int) -> Vocabulary:
    """`vocabulary` with unused pieces up to `count`: models often have a few more rows."""
    missing = count - len(vocabulary)
    if missing <= 0:
        return vocabulary
    v = vocabulary
    return replace(
        v,
        pieces=(*v.pieces, *(f"[PAD{i}]" for i in range(len(v), count))),
        scores=np.append(np.asarray(v.scores), np.zeros(missing, np.float32)),
        types=np.append(np.asarray(v.types), np.full(missing, UNUSED, np.int32)),
    )
