"""Models of random weights: written by the command, read by gguf-py and by Fireside."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest

from fireside import engine
from fireside.app import bench_shapes
from fireside.engine import FiresideError, open_checkpoint
from fireside.engine.tokenizers import from_vocabulary
from tests.command import Cli

TINY = "64/172/2/4/2/300"


@pytest.mark.parametrize("kind", bench_shapes.TYPES)
def test_gguf_py_and_fireside_read_it(cli: Cli, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "tiny.gguf"
    wide = kind.endswith("_k")  # blocks of 256
    dim = 256 if wide else 64
    done = cli("bench", "--make-shape", f"{dim}/172/2/4/2/300:{kind}", path)
    assert (done.returncode, done.stdout) == (0, b"")
    assert done.stderr.decode().startswith(f"{path}: ")

    checkpoint = open_checkpoint(path)
    c = checkpoint.config
    numbers = (c.dim, c.hidden_dim, c.n_layers, c.n_heads, c.n_kv_heads, c.vocab_size)
    assert numbers == (dim, 172, 2, 4, 2, 300)
    assert c.context_length == 2048
    assert checkpoint.tied
    tensors = {t.name: t for t in gguf.GGUFReader(path).tensors}
    assert tensors.keys() == checkpoint.tensors.keys()
    for name, tensor in checkpoint.tensors.items():
        assert tensor.block == tensors[name].tensor_type.name
        theirs = gguf.quants.dequantize(tensors[name].data, tensors[name].tensor_type)
        np.testing.assert_array_equal(tensor.to_float32().ravel(), theirs.ravel())
    embedding = checkpoint.tensors["token_embd.weight"]
    assert embedding.block == bench_shapes.TYPES[kind]
    assert embedding.to_float32().std() == pytest.approx(dim**-0.5, rel=0.1)
    # 172 is not whole blocks of 32
    down = checkpoint.tensors["blk.0.ffn_down.weight"].block
    assert down == (bench_shapes.TYPES[kind] if kind in ("f32", "f16", "bf16") else "F16")


def test_the_model_runs(cli: Cli, tmp_path: Path) -> None:
    assert cli("bench", "--make-shape", f"{TINY}:q8_0", tmp_path).returncode == 0
    path = tmp_path / "64-172-2-4-2-300-q8_0.gguf"
    model = engine.load(path, kernels="numpy")
    assert len(list(model.session().generate("ab cd", max_tokens=3))) >= 3


def test_the_vocabulary_reads_what_it_wrote() -> None:
    vocabulary = bench_shapes.vocabulary(32000)
    assert len(set(vocabulary.pieces)) == len(vocabulary) == 32000
    assert vocabulary.pieces[259] == "\u2581"
    tokenizer = from_vocabulary(vocabulary)
    text = "abc de\u00e9 zz"
    ids = tokenizer.encode(text)
    assert len(ids) < len(text.encode())  # pieces are joined
    assert bench_shapes.vocabulary(300).pieces == vocabulary.pieces[:300]


def test_the_same_shape_is_the_same_file(cli: Cli, tmp_path: Path) -> None:
    """In every piece, however many threads made them."""
    for name in ("a", "b"):
        cli("bench", "--make-shape", "64/172/1/4:f16", tmp_path / f"{name}.gguf")
    first = (tmp_path / "a.gguf").read_bytes()
    assert first == (tmp_path / "b.gguf").read_bytes()
    tensors = open_checkpoint(tmp_path / "a.gguf").tensors
    embedding = tensors["token_embd.weight"].to_float32().ravel()
    assert len(embedding) > bench_shapes.PIECE
    assert np.isfinite(embedding).all()
    assert (embedding[: 1 << 10] != embedding[bench_shapes.PIECE :][: 1 << 10]).mean() > 0.9


def test_nothing_is_overwritten(cli: Cli, tmp_path: Path) -> None:
    names = [tmp_path / f"64-172-2-4-2-300-{kind}.gguf" for kind in ("f16", "q4_0")]
    names[1].write_bytes(b"mine")
    wanted = f"{TINY}:f16,{TINY}:q4_0"
    done = cli("bench", "--make-shape", wanted, f"{tmp_path}/")
    assert done.returncode == 1
    assert b"is there already" in done.stderr
    assert names[1].read_bytes() == b"mine"
    assert not names[0].exists()  # told before the first is made
    names[1].unlink()
    assert cli("bench", "--make-shape", wanted, tmp_path).returncode == 0
    assert all(name.stat().st_size > 1000 for name in names)


@pytest.mark.parametrize(
    "arguments",
    [
        ("13b", "out.gguf"),
        ("15m:q9_0", "out.gguf"),
        ("15m:", "out.gguf"),
        ("64/172/2", "out.gguf"),
        ("64/172/2/5", "out.gguf"),  # heads do not divide
        ("64/172/2/4/3", "out.gguf"),  # nor do kv heads
        ("60/172/2/4", "out.gguf"),  # heads of 15 do not turn
        ("64/172/0/4", "out.gguf"),
        ("64/172/2/4/2/100", "out.gguf"),  # no room for all bytes
        ("99999999/172/2/4", "out.gguf"),
        (TINY,),
        (TINY, "a.gguf", "b.gguf"),
        (f"{TINY},{TINY}:f16", "out.gguf"),  # two into one
    ],
)
def test_mistakes(cli: Cli, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    files = [tmp_path / name for name in arguments[1:]]
    done = cli("bench", "--make-shape", arguments[0], *files)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"fireside: error: ")
    assert not any(file.exists() for file in files)


def test_the_known_shapes() -> None:
    sizes = {}
    for name in bench_shapes.SHAPES:
        shape, kind = bench_shapes.parse(name.upper())
        assert kind == "f32"
        c = shape.config()
        layer = 2 * c.dim * (c.q_dim + c.kv_dim) + 3 * c.dim * c.hidden_dim
        sizes[name] = c.n_layers * layer + (1 if shape.tied else 2) * c.vocab_size * c.dim
    rounded = {name: round(size / 1e6) for name, size in sizes.items()}
    assert rounded == {"15m": 15, "42m": 42, "110m": 110, "1.1b": 1100, "7b": 6738}


def test_parse_names_what_there_is() -> None:
    with pytest.raises(FiresideError, match=r"15m, 42m, 110m, 1\.1b, 7b"):
        bench_shapes.parse("2b")
