"""The Plan in plain NumPy: for machines without a compiler, and to check the C against.

It does what the native kernels do, number for number up to the rounding of a float32: weights of a
quantised kind meet activations that were rounded to int8 blocks first. Rows (tokens) go through a
matrix one at a time, because a BLAS may sum a batch in another order than a single row, and a story
must not depend on how it was cut into steps.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fireside.engine import blocks
from fireside.engine.blocks.ggml import GgmlFormat
from fireside.engine.checkpoints.types import Checkpoint, Tensor
from fireside.engine.executors import (
    KV,
    Aborted,
    Cache,
    ExecutorKind,
    Part,
    Progress,
    Quant,
    Rows,
    register,
)
from fireside.engine.executors.numpy_functions import (
    activate,
    choose_experts,
    layer_norm,
    rms_norm,
    softcap,
)
from fireside.engine.plan import (
    Activation,
    Add,
    AddBias,
    Attention,
    Embed,
    Experts,
    GatedActivation,
    LayerNorm,
    MatMul,
    Op,
    Plan,
    RMSNorm,
    Rope,
    Scale,
    SelectRows,
    Slice,
)

Array = NDArray[np.float32]
BLOCK = 32  # weights that share a scale, as in ggml's Q8_0
WIDE = 8 * BLOCK  # activations that do
TARGET = {"f16": "F16", "q8": "Q8_0", "q4": "Q4_0"}
# Types whose scales matmuls round to levels: how many of those the largest one's power of two is
LEVELLED = dict.fromkeys(("Q8_0", "Q4_0", "IQ4_NL"), 127.5)
LEVELLED |= {"Q4_1": 1024, "Q5_0": 1024, "Q5_1": 512, "MXFP4": 1024}
# Types that meet rounded activations; what other types hold is taken as floats.
ROUNDED = {*LEVELLED, "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS"}


@dataclass
class Matrix:
    """A weight ready to use: values [rows, columns] for products, `rows` the same for looking up.

    `rounded`: whether its inputs are rounded to int8.
    """

    values: Array
    rounded: bool
    rows: Array


@dataclass
class NumpyCache:
    """Keys and values: two arrays [layers, positions, kv heads, head_dim].

    Always floats, already rounded; memory that was never written to is not there yet.
    """

    capacity: int
    keys: Array
    values: Array
    used: int = 0  # positions that were ever written

    @property
    def nbytes(self) -> int:
        """Bytes it holds now."""
        return (self.keys.nbytes + self.values.nbytes) * self.used // max(self.capacity, 1)


@dataclass
class Frame:
    """What one step works on."""

    cache: NumpyCache
    tokens: NDArray[np.int32]
    position: int
    rows: Rows
    buffers: dict[str, Array] = field(default_factory=dict)

    def read(self, s: Slice) -> Array:
        """The columns of a buffer that `s` names: a view [n, width]."""
        return self.buffers[s.buffer][:, s.start : s.start + s.width]


def vector(tensor: Tensor) -> Matrix:
    """A bias or the weight of a norm."""
    values = tensor.to_float32()
    return Matrix(values, False, values)


def load_matrix(tensor: Tensor, quant: Quant) -> Matrix:
    """Dequantise a matrix [rows, columns], after quantising it where `quant` asks for that."""
    if quant == "none" or tensor.block == TARGET[quant]:
        values = tensor.to_float32()
        if tensor.block not in LEVELLED:
            return Matrix(values, tensor.block in ROUNDED, values)
        return Matrix(to_levels(values, tensor.data, tensor.block), True, values)
    if quant == "f16":
        values = rounded_for("f16", tensor.to_float32())
        return Matrix(values, False, values)
    columns = tensor.shape[-1]
    padded = -(-columns // BLOCK) * BLOCK  # rows that end within a block are filled with zeros
    target = blocks.get(TARGET[quant])
    values = np.zeros((tensor.count // columns, padded), np.float32)
    values[:, :columns] = tensor.to_float32().reshape(-1, columns)
    data = target.quantise(values.reshape(-1))
    values = target.dequantise(data, values.size).reshape(values.shape)
    exact, levelled = (
        np.ascontiguousarray(x[:, :columns]).reshape(tensor.shape)
        for x in (values, to_levels(values, data, TARGET[quant]))
    )
    return Matrix(levelled, True, exact)


def levels(x: Array, power: float) -> Array:
    """Scales [rows, blocks] rounded to levels: of eight in a row to multiples of
    2^e / power, the largest being 2^e to 2^(e + 1); see fs_levels_of in native/kernels.h."""
    n = x.shape[1]
    grouped = np.zeros((len(x), -(-n // 8), 8), np.float32)
    grouped.reshape(len(x), -1)[:, :n] = x
    most = np.maximum(np.abs(grouped).max(-1, keepdims=True), np.float32(6e-8))
    one = np.ldexp(np.float32(0.5), np.frexp(most)[1])
    rounded = np.rint(grouped * (np.float32(power) / one)) * (one / np.float32(power))
    result: Array = rounded.reshape(len(x), -1)[:, :n]
    return result


def to_levels(values: Array, data: NDArray[np.uint8], block: str) -> Array:
    """Weights [..., columns] of a type of LEVELLED as matmuls take them, `data` their bytes."""
    form = blocks.get(block)
    assert isinstance(form, GgmlFormat)
    held = data[: blocks.nbytes(form, values.size)].view(form.dtype)
    shape = (-1, values.shape[-1] // BLOCK)
    if block == "MXFP4":
        d = np.ldexp(np.float32(1), held["e"].astype(np.int32) - 128).reshape(shape)
    else:
        d = held["d"].astype(np.float32).reshape(shape)
    low = np.zeros_like(d)
    if "m" in (held.dtype.names or ()):
        low = held["m"].astype(np.float32).reshape(shape)
    ratio = np.divide(levels(d, LEVELLED[block]), d, out=np.zeros_like(d), where=d != 0)
    steps = values.reshape(*d.shape, BLOCK) - low[..., None]
    result = steps * ratio[..., None] + low[..., None]
    return result.reshape(values.shape)


def round_to_int8(x: Array, group: int = BLOCK) -> Array:
    """x [n, width] as groups of int8 with a scale would have it, back in float32."""
    n, width = x.shape
    padded = np.zeros((n, -(-width // group) * group), np.float32)
    padded[:, :width] = x
    grouped = padded.reshape(n, -1, group)
    largest = np.abs(grouped).max(-1, keepdims=True)
    scale = largest / np.float32(127)
    inverse = np.divide(np.float32(127), largest, out=np.zeros_like(largest), where=largest > 0)
    rounded: Array = (np.rint(grouped * inverse) * scale).reshape(n, -1)[:, :width]
    return rounded


def met_by(matrix: Matrix, x: Array) -> Array:
    """x [n, width] as that matrix meets it."""
    return round_to_int8(x, WIDE) if matrix.rounded else x


def rounded_for(kv: KV, x: Array) -> Array:
    """x [..., head_dim] as a cache of that kind keeps it, back in float32."""
    if kv == "f16":
        return np.clip(x, -65504, 65504).astype(np.float16).astype(np.float32)
    if kv == "q8":
        return round_to_int8(x.reshape(-1, x.shape[-1])).reshape(x.shape)
    return x


class NumpyExecutor:
    """See fireside.engine.executors.Executor."""

    name = "numpy"
    isa = "numpy"

    def __init__(
        self,
        plan: Plan,
        checkpoint: Checkpoint,
        quant: Quant,
        progress: Progress | None,
        kv: KV = "f16",
    ) -> None:
        self.plan = plan
        self.kv: KV = kv
        self.threads = 0  # NumPy's BLAS decides
        self._abort = threading.Event()
        self._matrices: dict[str, Matrix] = {}
        names = dict.fromkeys(name for group in plan.weights for name in group)
        total = sum(checkpoint.tensors[name].nbytes for name in names)
        looked_up = {
            name for op in plan.ops if isinstance(op, Embed) for name in (op.weight, op.positions)
        }
        done = 0
        for name in names:
            tensor = checkpoint.tensors[name]
            self._matrices[name] = (
                load_matrix(tensor, quant) if len(tensor.shape) > 1 else vector(tensor)
            )
            if name not in looked_up:
                self._matrices[name].rows = self._matrices[name].values
            done += tensor.nbytes
            if progress:
                progress(done, total)

    @property
    def nbytes(self) -> int:
        """Bytes of the weights as laid out: float32, whatever the file has."""
        return sum(matrix.values.nbytes for matrix in self._matrices.values())

    def new_cache(self, capacity: int) -> NumpyCache:
        """An empty cache for `capacity` positions."""
        shape = (self.plan.n_layers, capacity, self.plan.n_kv_heads, self.plan.head_dim)
        return NumpyCache(capacity, np.zeros(shape, np.float32), np.zeros(shape, np.float32))

    def fork(self, cache: Cache) -> NumpyCache:
        """See Executor.fork; here it is a copy."""
        assert isinstance(cache, NumpyCache)
        copy = self.new_cache(cache.capacity)
        copy.used = cache.used
        copy.keys[:, : cache.used] = cache.keys[:, : cache.used]
        copy.values[:, : cache.used] = cache.values[:, : cache.used]
        return copy

    def step_batch(self, parts: Sequence[Part]) -> Array:
        """See Executor.step_batch; here it is one step after the other."""
        if len({id(cache) for cache, _, _ in parts}) != len(parts):
            raise RuntimeError("a cache can be only once in a step")
        return np.concatenate([self.step(*part, "last") for part in parts])

    def abort(self) -> None:
        """See Executor.abort."""
        self._abort.set()

    def step_rows(self, cache: Cache, tokens: list[int], position: int, rows: Rows) -> list[Array]:
        """See Executor.step_rows."""
        return list(self.step(cache, np.array(tokens, np.int32), position, rows))

    def step(self, cache: Cache, tokens: NDArray[np.int32], position: int, rows: Rows) -> Array:
        """See Executor.step."""
        assert isinstance(cache, NumpyCache)
        assert 0 <= position <= position + len(tokens) <= cache.capacity
        cache.used = max(cache.used, position + len(tokens))
        frame = Frame(cache, tokens, position, rows)
        for name, width in self.plan.buffers.items():
            frame.buffers[name] = np.empty((len(tokens), width), np.float32)
        for op in self.plan.ops:
            if self._abort.is_set():
                self._abort.clear()
                raise Aborted
            self._run(op, frame)
            if isinstance(op, SelectRows) and rows == "none":
                return np.empty((0, self.plan.logits.width), np.float32)
        return frame.read(self.plan.logits).copy()

    def _run(self, op: Op, frame: Frame) -> None:
        match op:
            case Embed():
                self._embed(op, frame)
            case RMSNorm() | LayerNorm():
                self._norm(op, frame)
            case MatMul():
                self._matmul(op, frame)
            case AddBias():
                bias = np.concatenate([self._matrices[name].values for name in op.weights])
                frame.read(op.x)[:] += bias
            case Add():
                frame.read(op.out)[:] += frame.read(op.x)
            case Rope():
                self._rope(op, frame)
            case Attention():
                self._attention(op, frame)
            case GatedActivation():
                gate, up = frame.read(op.gate), frame.read(op.up)
                frame.read(op.out)[:] = activate(op.activation, gate) * up
            case Activation():
                frame.read(op.out)[:] = activate(op.activation, frame.read(op.x))
            case Experts():
                self._experts(op, frame)
            case Scale():
                x = frame.read(op.x)
                x[:] = softcap(x * np.float32(op.factor), op.softcap)
            case SelectRows():
                keep = {"last": slice(-1, None), "all": slice(None), "none": slice(0, 0)}[
                    frame.rows
                ]
                frame.buffers = {name: b[keep] for name, b in frame.buffers.items()}
                frame.read(op.out)[:] = frame.read(op.x)

    def _embed(self, op: Embed, frame: Frame) -> None:
        out = frame.read(op.out)
        out[:] = self._matrices[op.weight].rows[frame.tokens] * np.float32(op.scale)
        if op.positions:
            end = frame.position + len(frame.tokens)
            out += self._matrices[op.positions].rows[frame.position : end]

    def _norm(self, op: RMSNorm | LayerNorm, frame: Frame) -> None:
        weight = self._matrices[op.weight].values
        for row, out in zip(frame.read(op.x), frame.read(op.out), strict=True):
            if isinstance(op, LayerNorm):
                bias = self._matrices[op.bias].values if op.bias else None
                for i in range(0, len(row), op.head_dim or len(row)):
                    head = slice(i, i + (op.head_dim or len(row)))
                    add = bias[head] if bias is not None else None
                    out[head] = layer_norm(row[head], weight[head], add, op.eps)
            else:
                heads = row.reshape(-1, len(weight))
                out[:] = rms_norm(heads, weight, op.eps).reshape(-1)

    def _matmul(self, op: MatMul, frame: Frame) -> None:
        x, out = frame.read(op.x), frame.read(op.out)
        start = 0
        for name in op.weights:
            matrix = self._matrices[name]
            inputs = met_by(matrix, x)
            stop = start + len(matrix.values)
            for row, target in zip(inputs, out[:, start:stop], strict=True):
                product = matrix.values @ row
                target[:] = target + product if op.add else product
            start = stop

    def _experts(self, op: Experts, frame: Frame) -> None:
        gate, up, down = (self._matrices[name] for name in (op.gate, op.up, op.down))
        rows = zip(frame.read(op.router), frame.read(op.x), frame.read(op.out), strict=True)
        for router, x, out in rows:
            for_gate, for_up = (met_by(matrix, x[None])[0] for matrix in (gate, up))
            out[:] = 0
            chosen, weights = choose_experts(router, op.used, op.normalise)
            for e, weight in zip(chosen, weights, strict=True):
                hidden = activate(op.activation, gate.values[e] @ for_gate)
                hidden *= up.values[e] @ for_up
                out += weight * (down.values[e] @ met_by(down, hidden[None])[0])

    def _rope(self, op: Rope, frame: Frame) -> None:
        x = frame.read(op.x)
        n, magnitude = op.rotary_dim, op.magnitude
        heads = x.reshape(len(x), -1, op.head_dim)  # a copy where x is some columns only
        angle = (frame.position + np.arange(len(x)))[:, None] * np.array(op.frequencies)
        cos = (np.cos(angle) * magnitude)[:, None].astype(np.float32)
        sin = (np.sin(angle) * magnitude)[:, None].astype(np.float32)
        half = op.style == "half"
        first = np.s_[..., : n // 2] if half else np.s_[..., 0:n:2]
        second = np.s_[..., n // 2 : n] if half else np.s_[..., 1:n:2]
        turned = heads.copy()
        turned[first] = heads[first] * cos - heads[second] * sin
        turned[second] = heads[first] * sin + heads[second] * cos
        x[:] = turned.reshape(x.shape)

    def _attention(self, op: Attention, frame: Frame) -> None:
        n, cache, d = len(frame.tokens), frame.cache, op.head_dim
        keys, values = cache.keys[op.layer], cache.values[op.layer]  # [capacity, kv heads, d]
        end = frame.position + n
        k, v = frame.read(op.k).reshape(n, -1, d), frame.read(op.v).reshape(n, -1, d)
        keys[frame.position : end] = rounded_for(self.kv, k)
        values[frame.position : end] = rounded_for(self.kv, v)
        groups = keys.shape[1]
        q = frame.read(op.q).reshape(n, groups, -1, d)  # [n, kv heads, heads per kv head, d]
        out = np.empty_like(q)
        for i in range(n):
            length = frame.position + i + 1
            first = max(0, length - op.window) if op.window else 0
            for g in range(groups):
                scores = (q[i, g] @ keys[first:length, g].T) * np.float32(op.scale)
                scores = softcap(scores, op.softcap)  # [heads, positions seen]
                weights = np.exp(scores - scores.max(-1, keepdims=True))
                weights /= weights.sum(-1, keepdims=True)
                out[i, g] = weights @ values[first:length, g]
        frame.read(op.out)[:] = out.reshape(n, -1)


def weights_nbytes(plan: Plan, checkpoint: Checkpoint, quant: Quant) -> int:
    """Bytes that the weights will take: float32, whatever the file has."""
    names = {name for group in plan.weights for name in group}
    return sum(4 * checkpoint.tensors[name].count for name in names)


def build(
    plan: Plan,
    checkpoint: Checkpoint,
    quant: Quant,
    threads: int,
    progress: Progress | None,
    kv: KV = "f16",
) -> NumpyExecutor:
    """An entry of the registry; `threads` is NumPy's own affair (OPENBLAS_NUM_THREADS)."""
    return NumpyExecutor(plan, checkpoint, quant, progress, kv)


register(ExecutorKind("numpy", weights_nbytes, lambda: "", build))
