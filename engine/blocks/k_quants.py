"""Q2_K to Q6_K: 256 weights in sub-blocks whose own scales are small integers. (ggml, "k-quants")

Sub-block i: weight = d * scale[i] * q - dmin * minimum[i] in Q2_K, Q4_K and Q5_K, and
d * scale[i] * q with signed q in Q3_K and Q6_K. The halves, quarters and bits of the numbers q lie
interleaved; every `numbers` here puts them in the order of the weights.
"""

from __future__ import annotations

from fireside.engine.arrays import np
from fireside.engine.blocks import Floats, register
from fireside.engine.blocks.ggml import GgmlFormat, Integers, Records, column, product, reciprocal

SIZE = 256


def pairs(q: Integers) -> Integers:
    """[n, 128] bytes -> [n, 8, 32] nibbles: 32 bytes hold the low ones of a sub-block, then the
    high ones of the next."""
    q = q.reshape(-1, 4, 1, 32)
    return np.concatenate([q & 15, q >> 4], axis=2).reshape(-1, 8, 32)


def into_pairs(q: Integers) -> Integers:
    """The inverse of `pairs`."""
    q = q.reshape(-1, 4, 2, 32)
    packed: Integers = (q[:, :, 0] | (q[:, :, 1] << 4)).reshape(-1, 128)
    return packed


def six_bits(packed: Integers) -> tuple[Integers, Integers]:
    """[n, 12] -> the eight scales and the eight minima of a block, 6 bits each."""
    first, second, high = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scales = np.concatenate([first & 63, (high & 15) | (first >> 6 << 4)], axis=1)
    minima = np.concatenate([second & 63, (high >> 4) | (second >> 6 << 4)], axis=1)
    return scales, minima


def into_six_bits(scales: Integers, minima: Integers) -> Integers:
    """The inverse of `six_bits`."""
    first = scales[:, :4] | (scales[:, 4:] >> 4 << 6)
    second = minima[:, :4] | (minima[:, 4:] >> 4 << 6)
    high = (scales[:, 4:] & 15) | ((minima[:, 4:] & 15) << 4)
    return np.concatenate([first, second, high], axis=1)


def scaled(d: Integers, integers: Integers) -> Floats:
    """d [n] (f16) times integers [n, sub-blocks] as float32 [n, sub-blocks, 1]."""
    return product(d.astype(np.float32)[:, None], integers)[:, :, None]


class Q2_K(GgmlFormat):  # noqa: N801 (ggml's name)
    """16 sub-blocks of 16; scales and minima of 4 bits. Read only."""

    name = "Q2_K"
    block_size = SIZE
    ggml_type = 10
    record = (("s", "u1", (16,)), ("q", "u1", (64,)), ("d", "<f2"), ("dmin", "<f2"))

    def unpack(self, blocks: Records) -> Floats:
        """d * scale * q - dmin * minimum."""
        shifts = np.array([0, 2, 4, 6], np.uint8)[None, None, :, None]
        q = (blocks["q"].reshape(-1, 2, 1, 32) >> shifts & 3).reshape(-1, 16, 16)
        s = blocks["s"]
        out = scaled(blocks["d"], s & 15) * q - scaled(blocks["dmin"], s >> 4)
        return out.reshape(-1, SIZE)


class Q3_K(GgmlFormat):  # noqa: N801 (ggml's name)
    """16 sub-blocks of 16; scales of 6 bits, less 32. Read only."""

    name = "Q3_K"
    block_size = SIZE
    ggml_type = 11
    record = (("h", "u1", (32,)), ("q", "u1", (64,)), ("s", "u1", (12,)), ("d", "<f2"))

    def unpack(self, blocks: Records) -> Floats:
        """d * (scale - 32) * (q - 4)."""
        shifts = np.array([0, 2, 4, 6], np.uint8)
        low = blocks["q"].reshape(-1, 2, 1, 32) >> shifts[:, None] & 3  # [n, 2, 4, 32]
        bits = np.arange(8, dtype=np.uint8)[:, None]
        high = (blocks["h"][:, None, :] >> bits & 1).reshape(-1, 2, 4, 32)
        q = (low | high << 2).view(np.int8).reshape(-1, 16, 16) - np.int8(4)
        s = blocks["s"]
        low_scales = np.concatenate([s[:, :8] & 15, s[:, :8] >> 4], axis=1)  # [n, 16]
        high_scales = (s[:, None, 8:] >> shifts[:, None] & 3).reshape(-1, 16)
        scales = (low_scales | high_scales << 4).view(np.int8) - np.int8(32)
        return product(scaled(blocks["d"], scales), q).reshape(-1, SIZE)


class Q4_K(GgmlFormat):  # noqa: N801 (ggml's name)
    """8 sub-blocks of 32; scales and minima of 6 bits."""

    name = "Q4_K"
    block_size = SIZE
    ggml_type = 12
    record = (("d", "<f2"), ("dmin", "<f2"), ("s", "u1", (12,)), ("q", "u1", (128,)))

    def unpack(self, blocks: Records) -> Floats:
        """d * scale * q - dmin * minimum."""
        scales, minima = six_bits(blocks["s"])
        steps = scaled(blocks["d"], scales) * pairs(blocks["q"])
        return (steps - scaled(blocks["dmin"], minima)).reshape(-1, SIZE)

    def pack(self, rows: Floats) -> Records:
        """See `fit`."""
        records = np.empty(len(rows), self.dtype)
        records["q"] = into_pairs(fit(rows.reshape(-1, 8, 32), 15, records))
        return records


class Q5_K(GgmlFormat):  # noqa: N801 (ggml's name)
    """8 sub-blocks of 32 as in Q4_K; bit i of byte j is the fifth of number j of sub-block i."""

    name = "Q5_K"
    block_size = SIZE
    ggml_type = 13
    record = (
        ("d", "<f2"),
        ("dmin", "<f2"),
        ("s", "u1", (12,)),
        ("h", "u1", (32,)),
        ("q", "u1", (128,)),
    )

    def unpack(self, blocks: Records) -> Floats:
        """d * scale * q - dmin * minimum."""
        scales, minima = six_bits(blocks["s"])
        bits = np.arange(8, dtype=np.uint8)[:, None]
        q = pairs(blocks["q"]) | (blocks["h"][:, None, :] >> bits & 1) << 4
        steps = product(scaled(blocks["d"], scales), q)
        return (steps - scaled(blocks["dmin"], minima)).reshape(-1, SIZE)

    def pack(self, rows: Floats) -> Records:
        """See `fit`."""
        records = np.empty(len(rows), self.dtype)
        q = fit(rows.reshape(-1, 8, 32), 31, records)
        bits = np.arange(8, dtype=np.uint8)[:, None]
        records["h"] = np.bitwise_or.reduce(q >> 4 << bits, axis=1)
        records["q"] = into_pairs(q & 15)
        return records


class Q6_K(GgmlFormat):  # noqa: N801 (ggml's name)
    """16 sub-blocks of 16; scales are signed bytes."""

    name = "Q6_K"
    block_size = SIZE
    ggml_type = 14
    record = (("q", "u1", (128,)), ("h", "u1", (64,)), ("s", "i1", (16,)), ("d", "<f2"))

    def unpack(self, blocks: Records) -> Floats:
        """d * scale * (q - 32)."""
        low = blocks["q"].reshape(-1, 2, 1, 64)
        low = np.concatenate([low & 15, low >> 4], axis=2).reshape(-1, 2, 4, 32)
        shifts = np.array([0, 2, 4, 6], np.uint8)[:, None]
        high = blocks["h"].reshape(-1, 2, 1, 32) >> shifts & 3  # [n, 2, 4, 32]
        q = (low | high << 4).view(np.int8).reshape(-1, 16, 16) - np.int8(32)
        return product(scaled(blocks["d"], blocks["s"]), q).reshape(-1, SIZE)

    def pack(self, rows: Floats) -> Records:
        """Each sub-block's scale is the best of a few; the largest becomes -128 of d."""
        records = np.empty(len(rows), self.dtype)
        parts = rows.reshape(-1, 16, 16)
        scale = best_symmetric(parts)  # [n, 16]
        widest = np.take_along_axis(scale, np.abs(scale).argmax(1)[:, None], axis=1)
        halfs = (widest / np.float32(-128) + np.float32(0)).astype(np.float16)
        records["d"] = halfs[:, 0]
        d: Floats = halfs.astype(np.float32)
        s = np.rint(scale * reciprocal(d)).clip(-128, 127)
        records["s"] = s.astype(np.int8)
        q = np.rint(parts * reciprocal(d * s)[:, :, None]).clip(-32, 31).astype(np.int8)
        bits = (q + np.int8(32)).view(np.uint8).reshape(-1, 2, 4, 32)
        low = bits & 15
        records["q"] = (low[:, :, :2] | low[:, :, 2:] << 4).reshape(-1, 128)
        shifts = np.array([0, 2, 4, 6], np.uint8)[:, None]
        records["h"] = np.bitwise_or.reduce(bits >> 4 << shifts, axis=2).reshape(-1, 64)
        return records


# ---- choosing scales: the least squared error, large weights counting more ----
# native/quantise_body.h does the same, and to the last bit: every sum says in which order.


def total(x: Floats) -> Floats:
    """The sums of the last axis, a multiple of 8: every eighth number, then those in pairs."""
    eighths = x.reshape(*x.shape[:-1], -1, 8)
    parts = eighths[..., 0, :]
    for i in range(1, eighths.shape[-2]):
        parts = parts + eighths[..., i, :]
    while parts.shape[-1] > 1:
        parts = parts[..., ::2] + parts[..., 1::2]
    return parts[..., 0]


def best_symmetric(parts: Floats) -> Floats:
    """The scale of each [n, sub-blocks, 16] for numbers -32..31: weighted least squares.

    For a few divisions of the largest weight: round, then the scale that fits those numbers best.
    """
    at = np.abs(parts).argmax(-1)[:, :, None]
    largest = np.take_along_axis(parts, at, axis=-1)
    weight = parts * parts
    best = np.zeros(parts.shape[:2], np.float32)
    gain = np.full(parts.shape[:2], np.float32(-1))
    for tenths in range(-3, 4):
        inverse = np.float32(-32 + 0.3 * tenths) * reciprocal(largest)
        q = np.rint(parts * inverse).clip(-32, 31)
        match = total(weight * parts * q)
        square = total(weight * q * q)
        explained = match * match * reciprocal(square)
        better = explained > gain
        best = np.where(better, match * reciprocal(square), best)
        gain = np.where(better, explained, gain)
    return best


def fit(parts: Floats, most: int, records: Records) -> Integers:
    """Numbers 0..most [n, 8, 32] for sub-blocks `parts`; writes d, dmin and the packed scales.

    Weight = d * scale * q - dmin * minimum with a minimum that is not negative: for a few
    divisions of the range the numbers are rounded, and scale and minimum fitted to them by weighted
    least squares; the best is kept, rounded to 6 bits, and the numbers rounded once more.
    """
    scale, low = best_affine(parts, most)
    # + 0: no scale is -0
    records["d"] = scale.max(1) / np.float32(63) + np.float32(0)
    records["dmin"] = low.max(1) / np.float32(63) + np.float32(0)
    d, dmin = column(records, "d"), column(records, "dmin")
    s = np.rint(scale * reciprocal(d)).clip(0, 63).astype(np.uint8)
    m = np.rint(low * reciprocal(dmin)).clip(0, 63).astype(np.uint8)
    records["s"] = into_six_bits(s, m)
    steps, offsets = (d * s)[:, :, None], (dmin * m)[:, :, None]
    q: Integers = np.rint((parts + offsets) * reciprocal(steps)).clip(0, most).astype(np.uint8)
    return q


def best_affine(parts: Floats, most: int) -> tuple[Floats, Floats]:
    """(scale, minimum) [n, 8] each: weight ~ scale * q - minimum, both not negative."""
    square = total(parts * parts)[:, :, None] / np.float32(parts.shape[-1])
    weight = np.sqrt(square) + np.abs(parts)
    low = np.minimum(parts.min(-1, keepdims=True), 0)
    span = parts.max(-1, keepdims=True) - low
    whole, first = total(weight), total(weight * parts)
    best = ((span / np.float32(most))[:, :, 0], -low[:, :, 0])
    error = np.full(parts.shape[:2], np.float32(np.inf))
    for step in range(-6, 7):
        q = np.rint((parts - low) * np.float32(most + 0.1 * step) * reciprocal(span)).clip(0, most)
        wq = weight * q
        sum_q, sum_qq, sum_qx = total(wq), total(wq * q), total(wq * parts)
        determinant = whole * sum_qq - sum_q * sum_q
        scale = (whole * sum_qx - sum_q * first) * reciprocal(determinant)
        base = (sum_qq * first - sum_q * sum_qx) * reciprocal(determinant)
        # a minimum may not be negative: then the line goes through 0
        through = base > 0
        scale = np.where(through, sum_qx * reciprocal(sum_qq), scale).clip(0)
        base = np.where(through, np.float32(0), base)
        off = scale[:, :, None] * q + base[:, :, None] - parts
        now = total(weight * off * off)
        better = (now < error) & (determinant > 0)
        best = (np.where(better, scale, best[0]), np.where(better, -base, best[1]))
        error = np.where(better, now, error)
    return best


for entry in (Q2_K(), Q3_K(), Q4_K(), Q5_K(), Q6_K()):
    register(entry)
