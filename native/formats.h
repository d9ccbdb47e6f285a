/* Block formats of files (ggml's), as pack.c reads them: the numbers and scales of a block of 32
 * weights of a row, and the weights themselves. engine/blocks/ has the same in NumPy. */
#ifndef FS_FORMATS_H
#define FS_FORMATS_H

#include <string.h>

#include "fireside.h"

/* weights of a block in a file */
static inline int64_t fs_file_weights(int from)
{
    return from >= FS_FROM_Q4_K ? 256 : from >= FS_FROM_Q8_0 ? FS_BLOCK : 1;
}

/* bytes of a block in a file */
static inline int64_t fs_file_bytes(int from)
{
    switch (from) {
    case FS_FROM_F32: return 4;
    case FS_FROM_F16:
    case FS_FROM_BF16: return 2;
    case FS_FROM_Q8_0: return 34;
    case FS_FROM_Q4_0: return 18;
    case FS_FROM_Q4_1: return 20;
    case FS_FROM_Q5_0: return 22;
    case FS_FROM_Q5_1: return 24;
    case FS_FROM_IQ4_NL: return 18;
    case FS_FROM_MXFP4: return 17;
    case FS_FROM_Q2_K: return 84;
    case FS_FROM_Q3_K: return 110;
    case FS_FROM_IQ4_XS: return 136;
    case FS_FROM_Q4_K: return 144;
    case FS_FROM_Q5_K: return 176;
    default: return 210;
    }
}

/* bytes of `count` weights, whole blocks */
static inline int64_t fs_file_nbytes(int from, int64_t count)
{
    return count / fs_file_weights(from) * fs_file_bytes(from);
}

static inline uint16_t fs_read_half(const uint8_t *p)
{
    uint16_t half;
    memcpy(&half, p, 2);
    return half;
}

/* u[0..16) from the low halves of 16 bytes, u[16..32) from the high ones */
static inline void fs_read_nibbles(const uint8_t *p, uint8_t *u)
{
    for (int i = 0; i < 16; i++) u[i] = p[i] & 15, u[16 + i] = p[i] >> 4;
}

/* the fifth bits */
static inline void fs_read_fifth(const uint8_t *p, uint8_t *u)
{
    for (int i = 0; i < FS_BLOCK; i++) u[i] |= (uint8_t)((p[i / 8] >> i % 8 & 1) << 4);
}

/* the numbers of block `block` (of 32 weights) of a row, none of them negative; not of Q8_0 */
static inline void fs_file_numbers(int from, const uint8_t *row, int64_t block, uint8_t *u)
{
    const uint8_t *p = row + block * FS_BLOCK / fs_file_weights(from) * fs_file_bytes(from);
    const int j = (int)(block % FS_SUPER);
    switch (from) {
    case FS_FROM_Q4_0: fs_read_nibbles(p + 2, u); break;
    case FS_FROM_Q4_1: fs_read_nibbles(p + 4, u); break;
    case FS_FROM_IQ4_NL: fs_read_nibbles(p + 2, u); break;
    case FS_FROM_MXFP4: fs_read_nibbles(p + 1, u); break;
    case FS_FROM_IQ4_XS: fs_read_nibbles(p + 8 + j * 16, u); break;
    case FS_FROM_Q2_K:
        for (int i = 0; i < FS_BLOCK; i++) u[i] = p[16 + j / 4 * 32 + i] >> j % 4 * 2 & 3;
        break;
    case FS_FROM_Q3_K:
        for (int i = 0; i < FS_BLOCK; i++)
            u[i] = (uint8_t)((p[32 + j / 4 * 32 + i] >> j % 4 * 2 & 3) | (p[i] >> j & 1) << 2);
        break;
    case FS_FROM_Q5_0:
        fs_read_nibbles(p + 6, u);
        fs_read_fifth(p + 2, u);
        break;
    case FS_FROM_Q5_1:
        fs_read_nibbles(p + 8, u);
        fs_read_fifth(p + 4, u);
        break;
    case FS_FROM_Q4_K:
        for (int i = 0; i < FS_BLOCK; i++) u[i] = p[16 + j / 2 * 32 + i] >> j % 2 * 4 & 15;
        break;
    case FS_FROM_Q5_K:
        for (int i = 0; i < FS_BLOCK; i++)
            u[i] = (uint8_t)((p[48 + j / 2 * 32 + i] >> j % 2 * 4 & 15) | (p[16 + i] >> j & 1) << 4);
        break;
    default: /* Q6_K: two halves of 128 weights, in each four of 32 */
        for (int i = 0; i < FS_BLOCK; i++)
            u[i] = (uint8_t)((p[j / 4 * 64 + j % 2 * 32 + i] >> j % 4 / 2 * 4 & 15) |
                             (p[128 + j / 4 * 32 + i] >> j % 4 * 2 & 3) << 4);
    }
}

/* the scale and the minimum (6 bits each) of sub-block j of Q4_K and Q5_K; p: their 12 bytes */
static inline void fs_six_bits(const uint8_t *p, int j, uint8_t *scale, uint8_t *minimum)
{
    if (j < 4) {
        *scale = p[j] & 63;
        *minimum = p[4 + j] & 63;
    } else {
        *scale = (uint8_t)((p[4 + j] & 15) | p[j - 4] >> 6 << 4);
        *minimum = (uint8_t)(p[4 + j] >> 4 | p[j] >> 6 << 4);
    }
}

/* 2^(e - 128): the scale of a block of MXFP4 */
static inline float fs_power(uint8_t e)
{
    uint32_t bits = e > 1 ? (uint32_t)(e - 1) << 23 : 0x200000u << e;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

/* the scale, with its sign, of half block i of Q3_K; p: their 12 bytes */
static inline uint8_t fs_q3_scale(const uint8_t *p, int i)
{
    int low = i < 8 ? p[i] & 15 : p[i - 8] >> 4;
    return (uint8_t)((low | (p[8 + i % 4] >> i / 4 * 2 & 3) << 4) - 32);
}

/* the same of block j of IQ4_XS; p: the whole block */
static inline uint8_t fs_iq4_scale(const uint8_t *p, int j)
{
    int low = p[4 + j / 2] >> j % 2 * 4 & 15, high = fs_read_half(p + 2) >> 2 * j & 3;
    return (uint8_t)((low | high << 4) - 32);
}

/* the scales of a block of a row into lane `lane` of a panel's */
static inline void fs_file_scales(int from, const uint8_t *row, int64_t block, int lane,
                                  uint8_t *scales)
{
    const uint8_t *p = row + block * FS_BLOCK / fs_file_weights(from) * fs_file_bytes(from);
    const int j = (int)(block % FS_SUPER);
    if (!fs_is_super(from)) {
        scales += block * fs_scale_bytes(from) + lane * 2;
        if (from == FS_FROM_MXFP4) { /* exact from 2^-24 to 2^15 */
            uint16_t half = fs_float_to_half(fs_power(*p < 143 ? *p : 143));
            memcpy(scales, &half, 2);
            return;
        }
        memcpy(scales, p, 2);
        if (fs_has_minima(from)) memcpy(scales + 32, p + 2, 2);
        return;
    }
    scales += block / FS_SUPER * fs_scale_bytes(from);
    if (from == FS_FROM_Q6_K) {
        memcpy(scales + lane * 2, p + 208, 2);
        for (int half = 0; half < 2; half++)
            scales[32 + fs_scale_at(2 * j + half, lane)] = p[192 + 2 * j + half];
        return;
    }
    if (from == FS_FROM_Q3_K) {
        memcpy(scales + lane * 2, p + 108, 2);
        for (int i = 2 * j; i < 2 * j + 2; i++)
            scales[32 + fs_scale_at(i, lane)] = fs_q3_scale(p + 96, i);
        return;
    }
    if (from == FS_FROM_IQ4_XS) {
        memcpy(scales + lane * 2, p, 2);
        scales[32 + fs_scale_at(j, lane)] = fs_iq4_scale(p, j);
        return;
    }
    if (from == FS_FROM_Q2_K) {
        memcpy(scales + lane * 2, p + 80, 2);
        memcpy(scales + 32 + lane * 2, p + 82, 2);
        for (int i = 2 * j; i < 2 * j + 2; i++) {
            scales[64 + fs_scale_at(i, lane)] = p[i] & 15;
            scales[64 + fs_scale_at(2 * FS_SUPER + i, lane)] = p[i] >> 4;
        }
        return;
    }
    memcpy(scales + lane * 2, p, 2);
    memcpy(scales + 32 + lane * 2, p + 2, 2);
    uint8_t *bytes = scales + 64 + fs_scale_at(j, lane);
    fs_six_bits(p + 4, j, bytes, bytes + FS_SUPER * FS_LANES);
}

/* The weight whose number is u: column i of a block, by its panel's scales. */
static inline float fs_packed_weight(int kind, const uint8_t *scales, int64_t block, int lane, int i,
                                     int u)
{
    const uint8_t *p = scales + block * fs_scale_bytes(kind);
    const int j = (int)(block % FS_SUPER);
    if (fs_is_super(kind)) p = scales + block / FS_SUPER * fs_scale_bytes(kind);
    float d = fs_half_to_float(fs_read_half(p + lane * 2)), m = 0.0f;
    const uint8_t *table = fs_table(kind);
    if (kind == FS_IQ4_XS) d *= (float)(int8_t)p[32 + fs_scale_at(j, lane)];
    if (table) return d * (float)(table[u] - 128);
    if (kind == FS_Q6_K || kind == FS_Q3_K) {
        d *= (float)(int8_t)p[32 + fs_scale_at(2 * j + i / 16, lane)];
        return d * (float)(u - fs_middle(kind));
    }
    if (!fs_has_minima(kind)) return d * (float)(u - fs_middle(kind));
    m = fs_half_to_float(fs_read_half(p + 32 + lane * 2));
    if (!fs_is_super(kind)) return d * (float)u + m;
    const int halves = fs_has_halves(kind) + 1, at = halves * j + (halves == 2 ? i / 16 : 0);
    const uint8_t *bytes = p + 64 + fs_scale_at(at, lane);
    d *= (float)bytes[0];
    return d * (float)u - m * (float)bytes[halves * FS_SUPER * FS_LANES];
}

/* The weights of a block of a row; the kinds of files and of panels have the same numbers. */
static inline void fs_file_floats(int from, const uint8_t *row, int64_t block, float *x)
{
    _Alignas(2) uint8_t u[FS_BLOCK], scales[64 + 4 * FS_SUPER * FS_LANES];
    if (from == FS_FROM_Q8_0) {
        const uint8_t *p = row + block * 34;
        float d = fs_half_to_float(fs_read_half(p));
        for (int i = 0; i < FS_BLOCK; i++) x[i] = (float)(int8_t)p[2 + i] * d;
        return;
    }
    if (from == FS_FROM_MXFP4) {
        const uint8_t *p = row + block * 17;
        fs_file_numbers(from, row, block, u);
        for (int i = 0; i < FS_BLOCK; i++)
            x[i] = fs_power(*p) * (float)(fs_table(FS_MXFP4)[u[i]] - 128);
        return;
    }
    const int64_t first = block % FS_SUPER; /* in scales that begin with this block's */
    row += (block - first) * FS_BLOCK / fs_file_weights(from) * fs_file_bytes(from);
    fs_file_numbers(from, row, first, u);
    fs_file_scales(from, row, first, 0, scales);
    for (int i = 0; i < FS_BLOCK; i++) x[i] = fs_packed_weight(from, scales, first, 0, i, u[i]);
}

/* Columns [block * 32, + n) of a row as floats, n at most 32. */
static inline void fs_row_floats(const fs_kernels *kernels, int from, const uint8_t *row,
                                 int64_t block, int64_t n, float *x)
{
    uint16_t halfs[FS_BLOCK];
    if (from == FS_FROM_F32) {
        memcpy(x, row + block * FS_BLOCK * 4, (size_t)n * 4);
    } else if (from == FS_FROM_F16) {
        memcpy(halfs, row + block * FS_BLOCK * 2, (size_t)n * 2);
        kernels->from_half(halfs, n, x);
    } else if (from == FS_FROM_BF16) {
        memcpy(halfs, row + block * FS_BLOCK * 2, (size_t)n * 2);
        for (int i = 0; i < n; i++) {
            uint32_t bits = (uint32_t)halfs[i] << 16;
            memcpy(x + i, &bits, 4);
        }
    } else {
        fs_file_floats(from, row, block, x);
    }
}

#endif
