"""From the corpus to token files: cleaning, tokenizer, name swaps, batches.

    python data.py --corpus DIR        writes build/storyteller/data/

Reads JSON lines (.jsonl.xz) with a `text` each. Writes a sentencepiece model and, for each kind
of text, one file of uint16 token ids (`*.bin`) and one of offsets (`*.npy`), both memory-mapped
by the training. The held-out stories are tokenised for measuring and go nowhere else.
"""

from __future__ import annotations

import argparse
import json
import lzma
import os
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import sentencepiece

ROOT = Path(__file__).resolve().parents[2]
CORPUS = Path(os.environ.get("FIRESIDE_CORPUS", ROOT.parent / "shared" / "corpus"))
WORK = Path(os.environ.get("FIRESIDE_STORYTELLER_WORK", ROOT / "build" / "storyteller"))

UNK, BOS, EOS = 0, 1, 2

# Names that stories use for people. Swapped for one another, so that the model learns to carry a
# name it was given instead of falling back to the three that every other story has. Names that
# are also plain words (Rose, Will, Sunny) are left out.
GIRL_NAMES = """Lily Lucy Sara Sarah Mia Anna Emma Amy Jane Molly Ella Lisa Lola Zoe Ava Sue Mary
Kate Jenny Sally Susie Jill Betty Emily Sophie Sophia Olivia Maya Nina Polly Alice Katie Maria Rosie
Clara Julia Laura Leah Nora Tina Wendy Hannah Eva Elsie Ruth Ida Martha Greta Freya Ines Noor
Priya Aisha Yuki Mei Zara Tessa Hilda Petra Lena Marta Abigail Amelia Chloe Bella"""
BOY_NAMES = """Tim Tom Ben Max Sam Jack Timmy Tommy Bob Billy Jimmy Johnny Mike Joe John Jim Charlie
Peter Leo Henry Daniel David Alex Adam Andy Danny Bobby Harry Oliver Lucas Noah Fred Freddie
Freddy Jake James Paul Simon Toby George Robert Samuel William Thomas Michael Matthew Joshua Ethan
Hugo Felix Otto Emil Arthur Oscar Walter Ivan Omar Ravi Kofi Kenji Mateo Nils Anton Theo"""
GIRLS, BOYS = GIRL_NAMES.split(), BOY_NAMES.split()
NAME = re.compile(r"\b(" + "|".join(GIRLS + BOYS) + r")\b")


def read_texts(path: Path) -> Iterator[str]:
    """The cleaned texts of one .jsonl.xz file."""
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            text = clean(json.loads(line)["text"])
            if text:
                yield text


def clean(text: str) -> str:
    """Even out whitespace; the words stay as they are."""
    text = re.sub(r"[ \t]+", " ", text.replace("\r\n", "\n"))
    text = re.sub(r" ?\n ?", "\n", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def swap_names(text: str, rng: random.Random) -> str:
    """Give each person of the story another name, the same one throughout."""
    renamed: dict[str, str] = {}
    for name in dict.fromkeys(NAME.findall(text)):
        pool = [n for n in (GIRLS if name in GIRLS else BOYS) if n not in renamed.values()]
        renamed[name] = rng.choice(pool)
    return NAME.sub(lambda match: renamed[match[0]], text)


def train_tokenizer(texts: Sequence[str], prefix: Path, vocab_size: int) -> None:
    """A Llama-like sentencepiece BPE: <unk>, <s>, </s>, 256 bytes, then pieces.

    A newline has to be the byte piece <0x0A>, alone, and the word after it has to be counted
    without the leading space that marks other words. The trainer cannot be told either, but it
    keeps digits alone (`split_digits`), so a digit stands in for the newline while it counts.
    """
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=(text.replace("\n", "0") for text in texts),
        model_prefix=str(prefix),
        model_type="bpe",
        vocab_size=vocab_size,
        byte_fallback=True,
        character_coverage=1.0,
        split_digits=True,
        add_dummy_prefix=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        unk_id=UNK,
        bos_id=BOS,
        eos_id=EOS,
        pad_id=-1,
        max_sentence_length=1 << 16,
        hard_vocab_limit=False,
        num_threads=os.cpu_count() or 1,
        minloglevel=1,
    )


def write_tokens(path: Path, documents: Sequence[list[int]]) -> int:
    """Write the documents end to end as uint16, and where each begins; returns the token count."""
    offsets = np.cumsum([0] + [len(ids) for ids in documents], dtype=np.int64)
    tokens = np.concatenate([np.asarray(ids, dtype=np.uint16) for ids in documents])
    tokens.tofile(path.with_suffix(".bin"))
    np.save(path.with_suffix(".npy"), offsets)
    return int(offsets[-1])


def prepare(
    corpus: Path, out: Path, vocab_size: int = 4096, copies: int = 8, seed: int = 1
) -> None:
    """Train the tokenizer and write every token file; `copies` times with other names."""
    out.mkdir(parents=True, exist_ok=True)
    stories = list(read_texts(corpus / "tinystories-train.jsonl.xz"))
    books = list(read_texts(corpus / "nursery-books.jsonl.xz"))
    train_tokenizer(stories + books[::4], out / "tokenizer", vocab_size)
    tokenizer = load_tokenizer(out)

    def story(text: str) -> list[int]:
        return [BOS, *tokenizer.encode(text), EOS]

    rng = random.Random(seed)
    counts = {
        "stories": write_tokens(out / "stories", [story(text) for text in stories]),
        # A book's passage neither begins nor ends as a story does: no BOS, no EOS.
        "books": write_tokens(out / "books", [tokenizer.encode(text) for text in books]),
    }
    for i in range(copies):
        swapped = [story(swap_names(text, rng)) for text in stories]
        counts[f"swapped-{i}"] = write_tokens(out / f"swapped-{i}", swapped)
    # Held out. The text is measured as it stands: not cleaned.
    with lzma.open(corpus / "tinystories-valid.jsonl.xz", "rt", encoding="utf-8") as lines:
        valid = [json.loads(line)["text"] for line in lines]
    counts["valid"] = write_tokens(out / "valid", [story(text) for text in valid])
    characters = {"stories": sum(map(len, stories)), "valid": sum(map(len, valid))}
    (out / "counts.json").write_text(json.dumps({"tokens": counts, "characters": characters}))
    print(f"{tokenizer.get_piece_size()} pieces, tokens {counts}, characters {characters}")


def load_tokenizer(data: Path) -> sentencepiece.SentencePieceProcessor:
    """The tokenizer that `prepare` trained."""
    return sentencepiece.SentencePieceProcessor(model_file=str(data / "tokenizer.model"))


@dataclass(frozen=True)
class Documents:
    """Token ids of many documents end to end; document i is tokens[offsets[i]:offsets[i + 1]]."""

    tokens: np.ndarray  # uint16 [total]
    offsets: np.ndarray  # int64 [documents + 1]

    @classmethod
    def open(cls, path: Path) -> Documents:
        """Map the two files of that name, whatever its suffix."""
        tokens = np.memmap(path.with_suffix(".bin"), dtype=np.uint16, mode="r")
        return cls(tokens, np.load(path.with_suffix(".npy")))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> np.ndarray:
        return self.tokens[self.offsets[index] : self.offsets[index + 1]]


def epoch_batches(
    data: Path,
    seed: int,
    epoch: int,
    batch_tokens: int,
    context: int,
    swapped: float,
    books: float,
    joined: float,
) -> list[list[np.ndarray]]:
    """The batches of one epoch: lists of rows of similar length, about batch_tokens in each.

    A row is a whole document from its first token, as it will be when the model writes; rows of
    similar length share a batch, so hardly anything is padding. `swapped` is the chance that a
    story comes with other names, which are others in each epoch while the copies last; `books`
    the share of book passages beside the stories, and `joined` the share of stories that stand
    several to a row, up to the context, so that late positions are trained too. The same arguments
    give the same batches.
    """
    rng = np.random.default_rng([seed, epoch])
    copies = len(list(data.glob("swapped-*.bin")))
    names = ("stories", f"swapped-{epoch % copies}", "books")
    sources = [Documents.open(data / name) for name in names]
    order = rng.permutation(len(sources[0]))
    rows = [sources[int(rng.random() < swapped)][i] for i in order]
    cut = int(len(rows) * joined)
    rows = join_rows(rows[:cut], context + 1) + rows[cut:]
    wanted = books * sum(len(row) for row in rows)
    for i in rng.permutation(len(sources[2])):
        if wanted <= 0:
            break
        rows.append(sources[2][i])
        wanted -= len(rows[-1])
    return group_rows(rows, batch_tokens, context, rng)


def join_rows(rows: list[np.ndarray], limit: int) -> list[np.ndarray]:
    """Join neighbours into rows of at most `limit` tokens."""
    joined: list[np.ndarray] = []
    for row in rows:
        if joined and len(joined[-1]) + len(row) <= limit:
            joined[-1] = np.concatenate([joined[-1], row])
        else:
            joined.append(row)
    return joined


def group_rows(
    rows: list[np.ndarray], batch_tokens: int, context: int, rng: np.random.Generator
) -> list[list[np.ndarray]]:
    """Sort by length, cut into batches, shuffle the batches."""
    rows = sorted((row[: context + 1] for row in rows), key=len)
    batches: list[list[np.ndarray]] = []
    start = 0
    while start < len(rows):
        end = start + 1
        while end < len(rows) and (end - start + 1) * len(rows[end]) <= batch_tokens:
            end += 1
        batches.append(rows[start:end])
        start = end
    rng.shuffle(batches)  # type: ignore[arg-type]
    return batches


def pad(rows: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Rows as two int64 arrays [rows, length]: inputs, and targets with -1 where nothing is."""
    length = max(len(row) for row in rows) - 1
    length += -length % 8
    inputs = np.full((len(rows), length), EOS, dtype=np.int64)
    targets = np.full((len(rows), length), -1, dtype=np.int64)
    for i, row in enumerate(rows):
        inputs[i, : len(row) - 1] = row[:-1]
        targets[i, : len(row) - 1] = row[1:]
    return inputs, targets


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", type=Path, default=CORPUS)
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument("--vocab-size", type=int, default=4096)
    parser.add_argument("--copies", type=int, default=8, help="of the stories, with other names")
    args = parser.parse_args()
    prepare(args.corpus, args.work / "data", args.vocab_size, args.copies)


if __name__ == "__main__":
    main()
