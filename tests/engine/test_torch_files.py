"""Files of torch.save: read as they are, and refused by name where they hold anything else."""

from __future__ import annotations

import json
import pickle
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fireside.engine import architectures, executors
from fireside.engine.architectures.common import llama3_factors
from fireside.engine.checkpoints import open_checkpoint
from fireside.engine.checkpoints.pickles import PickleError, load
from fireside.engine.checkpoints.types import Checkpoint
from fireside.engine.errors import CheckpointError, UnsupportedError
from tests.models import SHAPES, random_checkpoint
from tests.torch_files import (
    Emitter,
    Stored,
    llama2c_training,
    meta_state,
    save,
    save_legacy,
    unpack,
    zipped,
)

MODEL = random_checkpoint(replace(SHAPES["grouped"], rope_style="interleaved"), 5)
UNTIED = random_checkpoint(replace(SHAPES["grouped"], n_layers=1), 6, tied=False)


def check_same(path: Path, expected: Checkpoint) -> Checkpoint:
    """Open the model at `path` and compare all of it."""
    found = open_checkpoint(path)
    assert found.config == expected.config
    assert found.tensors.keys() == expected.tensors.keys()
    for name, tensor in expected.tensors.items():
        np.testing.assert_array_equal(found.tensors[name].to_float32(), tensor.to_float32(), name)
    return found


@pytest.mark.parametrize("model", [MODEL, UNTIED], ids=["tied", "untied"])
@pytest.mark.parametrize("kind", ["archive", "legacy", "folder"])
def test_training_checkpoints_of_llama2c(tmp_path: Path, kind: str, model: Checkpoint) -> None:
    path = tmp_path / "ckpt.pt"
    value = llama2c_training(model)
    if kind == "folder":
        path = unpack(tmp_path, save(value))
    else:
        path.write_bytes(save(value) if kind == "archive" else save_legacy(value))
    found = check_same(path, model)
    assert found.tied is model.tied
    assert found.metadata["multiple_of"] == 32


def test_half_precision_and_transposed_matrices(tmp_path: Path) -> None:
    value = llama2c_training(MODEL)
    state = value["model"]
    assert isinstance(state, dict)
    wq = MODEL.tensors["blk.0.attn_q.weight"].to_float32()
    turned = Stored(np.ascontiguousarray(wq.T).reshape(wq.shape), stride=(1, wq.shape[0]))
    state["_orig_mod.layers.0.attention.wq.weight"] = turned
    norm = Stored(MODEL.tensors["output_norm.weight"].to_float32(), "BF16")
    state["_orig_mod.norm.weight"] = norm
    path = tmp_path / "ckpt.pt"
    path.write_bytes(save(value))
    found = open_checkpoint(path).tensors
    np.testing.assert_array_equal(found["blk.0.attn_q.weight"].to_float32(), wq)
    assert found["output_norm.weight"].block == "BF16"
    turned.stride = (2, 1)
    turned.values = wq[:, : wq.shape[1] // 2].copy()
    path.write_bytes(save(value))
    with pytest.raises(CheckpointError, match="strides"):
        open_checkpoint(path)


# -- Meta's folders


def write_meta(folder: Path, model: Checkpoint, count: int, **params: object) -> None:
    """Meta's folder of `count` shards; the embedding is cut as Llama 2's."""
    c = model.config
    sizes = {"dim": c.dim, "n_layers": c.n_layers, "n_heads": c.n_heads, "norm_eps": c.norm_eps}
    sizes |= {"n_kv_heads": c.n_kv_heads, "vocab_size": -1, "multiple_of": 32}
    (folder / "params.json").write_text(json.dumps(sizes | params))
    by_rows = params.pop("embedding_by_rows", False)
    for shard in range(count):
        state: dict[str, object] = {"rope.freqs": Stored(np.zeros(4, np.float32), "BF16")}
        for name, stored in meta_state(model, "BF16").items():
            values = stored.values
            columns = name.endswith(("wo.weight", "w2.weight"))
            columns = columns or (name.startswith("tok_") and not by_rows)
            if values.ndim == 2:
                values = np.split(values, count, axis=int(columns))[shard]
            state[name] = Stored(np.ascontiguousarray(values), "BF16")
        (folder / f"consolidated.{shard:02}.pth").write_bytes(save(state, "consolidated"))


@pytest.mark.parametrize("count", [1, 2])
def test_folders_of_meta(tmp_path: Path, count: int) -> None:
    expected = replace(MODEL.config, context_length=4096)
    untied = random_checkpoint(expected, 6, "BF16", tied=False)
    norms = {
        name: replace(t, block="BF16", data=t.to_float32().view("<u2")[1::2].copy().view(np.uint8))
        for name, t in untied.tensors.items()
        if t.block == "F32"
    }
    untied = replace(untied, tensors={**untied.tensors, **norms})
    write_meta(tmp_path, untied, count)
    for path in (tmp_path, tmp_path / "params.json", tmp_path / "consolidated.00.pth"):
        assert "Meta" in check_same(path, untied).format
    # unpacked, one after the other; the folder of a single one goes without a number
    for shard in range(count):
        packed = tmp_path / f"consolidated.{shard:02}.pth"
        folder = unpack(tmp_path / "elsewhere", packed.read_bytes())
        folder.rename(tmp_path / (f"consolidated.{shard:02}" if count > 1 else "consolidated"))
        packed.unlink()
        for path in (tmp_path, tmp_path / "params.json"):
            assert "Meta" in check_same(path, untied).format
    if count > 1:
        check_same(tmp_path / "consolidated.01", untied)


@pytest.mark.skipif(
    bool(executors.get("native").why_not()), reason="the C kernels are not available"
)
def test_a_shard_that_changes_while_it_is_read(tmp_path: Path) -> None:
    write_meta(tmp_path, random_checkpoint(MODEL.config, 6, "BF16"), 2)
    checkpoint = open_checkpoint(tmp_path)
    plan = architectures.get("llama").plan(checkpoint.config, checkpoint.tied)
    build = executors.choose("native").build
    assert build(plan, checkpoint, "none", 1, None, "f32").nbytes
    with (tmp_path / "consolidated.01.pth").open("ab") as file:
        file.write(b"more")
    with pytest.raises(CheckpointError, match="changed"):
        build(plan, checkpoint, "none", 1, None, "f32")


def test_meta_of_llama_3(tmp_path: Path) -> None:
    model = random_checkpoint(MODEL.config, 6, "BF16", tied=False)
    write_meta(tmp_path, model, 2, rope_theta=5e5, use_scaled_rope=True, embedding_by_rows=True)
    (tmp_path / "params.json").write_text(
        (tmp_path / "params.json").read_text().replace(', "embedding_by_rows": true', "")
    )
    found = open_checkpoint(tmp_path)
    assert found.config.context_length == 131072
    np.testing.assert_array_equal(
        found.tensors["token_embd.weight"].to_float32(),
        model.tensors["token_embd.weight"].to_float32(),
    )
    factors = found.config.rope_factors
    assert factors[0] == 1
    assert factors[-1] == 8
    assert list(factors) == sorted(factors)


def test_the_waves_of_llama_3() -> None:
    """By the formula of wave lengths, as Meta wrote it down."""
    factors = llama3_factors(5e5, 128, 8.0, 1.0, 4.0, 8192)
    for i, factor in enumerate(factors):
        wave = 2 * np.pi * 5e5 ** (2 * i / 128)
        if wave < 8192 / 4:
            assert factor == 1
        elif wave > 8192:
            assert factor == 8
        else:
            smooth = (8192 / wave - 1) / 3
            assert 1 / factor == pytest.approx((1 - smooth) / 8 + smooth)


def test_a_folder_that_may_not_be_looked_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_meta(tmp_path, MODEL, 1)

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    for method in ("is_file", "iterdir"):
        with monkeypatch.context() as patched:
            patched.setattr(Path, method, refuse)
            with pytest.raises(CheckpointError, match="cannot be read: Permission denied"):
                open_checkpoint(tmp_path)


def test_what_is_wrong_with_a_folder_of_meta(tmp_path: Path) -> None:
    model = random_checkpoint(MODEL.config, 6, "BF16", tied=False)
    write_meta(tmp_path, model, 2)
    params = tmp_path / "params.json"
    good = params.read_text()
    for old, new, message in (
        ('"dim": 96', '"dim": 90', "expected"),
        ('"vocab_size": -1', '"vocab_size": 7', "vocab_size is 7"),
        ('"multiple_of"', '"moe"', "moe is not known"),
        ('"n_layers": 2', '"n_layers": 3', "missing"),
        ('"n_layers": 2', '"n_layers": 1', "no part of a Llama"),
        ("{", "{{", "not sound JSON"),
    ):
        params.write_text(good.replace(old, new, 1))
        with pytest.raises(CheckpointError, match=message):
            open_checkpoint(tmp_path)
    params.write_text(good)
    (tmp_path / "consolidated.01.pth").rename(tmp_path / "consolidated.02.pth")
    with pytest.raises(CheckpointError, match=r"consolidated\.01\.pth is missing"):
        open_checkpoint(tmp_path)


# -- pickles that want more than weights


class Runs:
    """What a hostile pickle is made of."""

    def __init__(self, *call: object) -> None:
        self.call = call

    def __reduce__(self) -> tuple[object, ...]:
        return self.call[0], tuple(self.call[1:])


HOSTILE = {
    "os": (b"cos\nsystem\n(X\x02\x00\x00\x00lstR.", r"os\.system"),
    "posix": (pickle.dumps(Runs(__import__("os").system, "true"), 2), r"\w+\.system"),
    "eval": (pickle.dumps(Runs(eval, "1"), 2), r"builtins?__?\.eval|__builtin__\.eval"),
    "getattr": (pickle.dumps(Runs(getattr, 1, "real"), 4), r"builtins\.getattr"),
    "dotted": (b"\x80\x04\x8c\x05torch\x8c\x10FloatStorage.mro\x93.", "FloatStorage.mro"),
    "torch's loader": (b"ctorch\nload\n)R.", r"torch\.load"),
    "a call of a string": (b"X\x01\x00\x00\x00a)R.", "no name"),
    "a call of a call": (b"ccollections\nOrderedDict\n)R)R.", "no name"),
    "attributes": (b"}}b.", "sets attributes"),
    "INST": (b"(ios\nsystem\n.", "INST"),
    "OBJ": (b"(cos\nsystem\no.", r"os\.system"),
    "OBJ of a known name": (b"(ctorch\nSize\no.", "OBJ"),
    "NEWOBJ": (b"ctorch\nSize\n)\x81.", "NEWOBJ"),
    "EXT1": (b"\x82\x01.", "EXT1"),
    "PERSID": (b"Pfile\n.", "PERSID"),
    "a persistent id": (b"X\x01\x00\x00\x00aQ.", "names no storage"),
    "a way out": (
        b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\n"
        b"X\x05\x00\x00\x00../..X\x03\x00\x00\x00cpuK\x01tQ.",
        "a storage called",
    ),
    "a list as a key": (b"}]Ns.", "key of type"),
    "deep keys": (b"}" + b")" + b"\x85" * 100_000 + b"Ns.", "key of type"),
    "numbers as keys": (b"}\x8a\x10" + b"\x7f" * 16 + b"Ns.", "key of type|large number"),
    "a long number": (b"\x8a\xff" + b"\1" * 255 + b".", "whole number of 255"),
    "a huge string": (b"X\xff\xff\xff\x7fabc.", "string of"),
    "marks": (b"(" * 400_000 + b".", "on the stack"),
    "a full stack": (b"N" * 400_000 + b".", "on the stack"),
    "an endless program": (b"N)\x85" + b"h\0q\0" * 10, "memo is not there"),
    "under a mark": (b"N(q\0.", "nothing on the stack"),
    "no mark": (b"t.", "no mark"),
    "nothing": (b".", "0 values"),
    "protocol 9": (b"\x80\x09.", "protocol 9"),
    "not UTF-8": (b"X\x01\x00\x00\x00\xff.", "UTF-8"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_pickles_that_want_more_are_refused_by_name(tmp_path: Path, name: str) -> None:
    data, message = HOSTILE[name]
    with pytest.raises(PickleError, match=message):
        load(data)
    path = tmp_path / "model.pt"
    path.write_bytes(zipped({"x/data.pkl": data}))
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(path)
    assert str(path) in str(caught.value)
    assert str(caught.value).isprintable()


def test_nothing_is_run(tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    path = tmp_path / "model.pt"
    path.write_bytes(zipped({"x/data.pkl": pickle.dumps(Runs(Path.touch, witness), 2)}))
    with pytest.raises(CheckpointError, match="getattr"):
        open_checkpoint(path)
    assert not witness.exists()


@pytest.mark.parametrize(
    "data",
    [
        b"]" * 200_000 + b"a" * 199_999 + b".",
        b")" + b"\x85" * 300_000 + b".",
        b"]q\0" + b"h\0a" * 150_000 + b".",
    ],
    ids=["lists in lists", "tuples in tuples", "a list in itself"],
)
def test_values_of_any_depth(data: bytes) -> None:
    start = time.perf_counter()
    value, end = load(data)
    assert end == len(data)
    assert value is not None
    del value
    assert time.perf_counter() - start < 5


# -- archives


def rewritten(data: bytes, old: bytes, new: bytes) -> bytes:
    assert old in data
    return data.replace(old, new)


def test_archives_with_tricks(tmp_path: Path) -> None:
    pickled = Emitter().pickle(llama2c_training(MODEL))
    good = save(llama2c_training(MODEL))
    path = tmp_path / "model.pt"
    central = good.index(b"PK\x01\x02")
    for data, message in (
        (zipped({"x/data.pkl": bytes(10_000)}, packed=True), "packed"),
        (zipped({"x/data.pkl": pickled}), "it is not there"),
        (zipped({"x/data.pkl": pickled, "y/data.pkl": pickled}), "2 data.pkl"),
        (zipped({"x/data.pkl": pickled, "x/constants.pkl": b"N."}), "TorchScript"),
        (zipped({"x/data.pkl": pickled, "x/byteorder": b"big"}), "byte order"),
        (zipped({"../data.pkl": pickled}), "member called"),
        (zipped({"/data.pkl": pickled}), "member called"),
        (rewritten(good, b"archive/data/1", b"archive/data/0"), "two members"),
        (good[:central].replace(b"data/1", b"data/X", 1) + good[central:], "not what"),
        (good[:-1], "without its end"),
        (rewritten(good, b"max_seq_len", b"max_sEq_len"), "data.pkl is not what its checksum says"),
        (good + b"\0", "without its end"),
        (good[:central] + good[central + 46 :], "AGAIN|damaged"),
    ):
        path.write_bytes(data)
        with pytest.raises(CheckpointError, match=message):
            open_checkpoint(path)


def test_members_may_not_overlap(tmp_path: Path) -> None:
    good = bytearray(save(llama2c_training(MODEL)))
    entries = [i for i in range(len(good)) if good[i : i + 4] == b"PK\x01\x02"]
    good[entries[3] + 42 : entries[3] + 46] = good[entries[4] + 42 : entries[4] + 46]
    path = tmp_path / "model.pt"
    path.write_bytes(good)
    with pytest.raises(CheckpointError, match="overlaps"):
        open_checkpoint(path)


def test_tensors_may_not_share_their_numbers(tmp_path: Path) -> None:
    value = llama2c_training(MODEL)
    state = value["model"]
    assert isinstance(state, dict)
    layer = "_orig_mod.layers.{}.attention.wq.weight"
    state[layer.format(0)] = state[layer.format(1)]
    path = tmp_path / "model.pt"
    path.write_bytes(save(value))
    with pytest.raises(UnsupportedError, match="shares numbers"):
        open_checkpoint(path)


def test_other_things_of_torch(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    for value, message in (
        ({"weight": Stored(np.zeros(3, np.float32))}, "without a configuration: it holds weight"),
        ([1, 2], "no dict"),
        (llama2c_training(MODEL, model_args={"dim": 5}), "missing"),
        (llama2c_training(MODEL, model_args={"dim": "x", "n_heads": 4}), "expected a whole"),
        (llama2c_training(MODEL, model={"lora.weight": 1}), "missing or no matrix"),
    ):
        for data in (save(value), save_legacy(value)):
            path.write_bytes(data)
            with pytest.raises(CheckpointError, match=message):
                open_checkpoint(path)
