/* What the kernels of every instruction set provide, and the data they work on.
 *
 * Weights are packed in panels of 16 output rows: one vector lane is one output row. A kernel
 * therefore adds up each output element alone, in the order of the columns, whatever the number of
 * rows, panels or threads around it: results are the same bits on every instruction set.
 */
#ifndef FS_KERNELS_H
#define FS_KERNELS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define FS_LANES 16 /* output rows in a panel, floats in a virtual vector */
#define FS_BLOCK 32 /* weights that share one scale (Q8_0, Q4_0) */
#define FS_PAGE 64  /* positions in a page of the cache */
#define FS_QUERIES 48 /* queries that one call of attend() takes at most */

#define FS_SUPER 8  /* blocks whose sums are added up as whole numbers; K types, IQ4_XS: in files too */
/* Kinds with a half for each block's scale: matmuls round those of FS_SUPER blocks as they round
 * activations, to levels: whole numbers, so large that a level times a weight has 16 bits at most. What a
 * level is worth hangs on the exponent e of the largest scale (2^e to 2^(e + 1), at least that of the least
 * half) alone: 2^e / fs_levels_of().
 */
#define FS_EXPONENT 0x7f800000u
/* bits of a float: levels in 1, less e's exponent; what one is worth, and e's exponent */
#define FS_LEVELS_IN_ONE(levels) (fs_bits(levels) + 0x3f800000u)
#define FS_UNIT(levels) (fs_bits(1.0f / (levels)) - 0x3f800000u)

/* they are the FS_PACK_... of fireside.h; from FS_Q8 on activations are rounded to int8 */
enum fs_kind {
    FS_F32, FS_F16, FS_BF16, FS_Q8, FS_Q4, FS_Q4_1, FS_Q5_0, FS_Q5_1, FS_IQ4_NL, FS_MXFP4,
    FS_Q4_K, FS_Q5_K, FS_Q6_K, FS_Q2_K, FS_Q3_K, FS_IQ4_XS, /* with blocks of blocks: FS_SUPER */
    FS_KINDS
};

/* A packed matrix [rows, cols]; `panels` = ceil(rows/16), `blocks` = ceil(cols/32).
 *
 * One panel, by kind (all of it 64-byte aligned):
 *   F32  float   [cols][16]
 *   F16  half    [cols][16]; BF16: the upper halves of floats
 *   Q8   uint8   [blocks][8 groups][16 rows][4 columns], a weight stored as w + 128; then
 *        half    [blocks][16] scales
 *   Q4   uint8   [blocks][4 groups][16 rows][4 columns], a weight stored as w + 8: columns
 *        4g..4g+3 in the low nibbles of group g, 16+4g..16+4g+3 in the high ones; then
 *        half    [blocks][16] scales
 *   The others: as Q4, a weight stored as its number of 4, 5 or 6 bits, none of them negative; 64
 *        or 128 bytes behind each block's nibbles hold the fifth and sixth bits, [16 rows][4 columns]
 *        as well: bit g of byte c is the fifth of column 4g + c; of 6 bits the two upper ones of
 *        columns 4g + c and 16 + 4g + c are bits 2g and 2g + 1 of the first and second 64 bytes. Then
 *        Q5_0        half [blocks][16] scales d; weight = d * (u - 16)
 *        Q4_1, Q5_1  half [blocks][2][16] d and minima m; weight = d * u + m
 *        Q4_K, Q5_K  for 8 blocks: half [2][16] d and dmin, uint8 [4][16][2] scales s, those of two
 *                    blocks side by side, uint8 [4][16][2] minima n; weight = d * s * u - dmin * n
 *        Q6_K        for 8 blocks: half [16] d, int8 [8][16][2] scales s of half blocks;
 *                    weight = d * s * (u - 32)
 *   Q2_K, Q3_K: two bits of columns 16h + 4g..16h + 4g + 3 are bits 2g and 2g + 1 of byte group h of
 *        two, the third of Q3_K lies behind as a fifth would. Then as Q4_K, but scales and minima of
 *        half blocks; as Q6_K: weight = d * s * (u - 4)
 *   IQ4_NL, MXFP4, IQ4_XS: nibbles as Q4, numbers that fs_table() turns into weights. Then as Q4; for
 *        8 blocks: half [16] d, int8 [4][16][2] scales
 * Rows and columns beyond the matrix hold zeros (scale zero, or bytes met by zero activations). */
typedef struct fs_matrix {
    int32_t kind;
    int32_t rows, cols;
    int32_t panels, blocks;
    int64_t panel_bytes;
    uint8_t *data;
} fs_matrix;

/* Rows of activations as a matmul reads them: floats for F32 and F16 weights, else int8 blocks. A
 * kernel may read (and ignore) rows up to the next multiple of 16, but for a single row. */
typedef struct fs_acts {
    const float *f; /* [rows][cols], rows f_stride apart */
    int64_t f_stride;
    const int8_t *q; /* [rows][blocks * 32], rows q_stride apart */
    int64_t q_stride;
    const float *scale;   /* [rows][ceil(blocks / FS_SUPER)], rows b_stride apart */
    const int32_t *shift; /* [rows][blocks]: made of the blocks' sums of q, see fs_offset() */
    int64_t b_stride;
    /* What this thread will read behind panel ahead_end, with one row; NULL: the panels there. */
    const uint8_t *ahead;
    int32_t ahead_end;
} fs_acts;

/* Where a matmul's result goes: out[row * stride + i], added to what is there if `add`. */
typedef struct fs_out {
    float *data;
    int64_t stride;
    int32_t add;
    const float *bias; /* [w->rows], added last; NULL: none */
} fs_out;

/* they are the FS_SILU... of fireside.h */
enum fs_activation { FS_ACT_SILU, FS_ACT_GELU, FS_ACT_GELU_TANH };

/* How keys and values lie in the cache; they are the FS_CACHE_... of fireside.h. */
enum fs_cache_kind { FS_KV_F32, FS_KV_F16, FS_KV_Q8, FS_KV_KINDS };

/* Queries of one kv head, against pages of FS_PAGE positions each.
 *
 * At `keys` bytes in a page:     number [4 blocks of 16 positions][head_dim][16 positions]
 * At `values` bytes:             number [FS_PAGE][value_width]
 * A number is a float, a half or an int8. Those have a float scale for up to 32 elements in a row,
 *   behind the keys:   [4 blocks of 16 positions][groups][16 positions]
 *   behind the values: [FS_PAGE][groups], groups = ceil(head_dim / 32) */
typedef struct fs_attend {
    int32_t kind; /* FS_KV_... */
    int32_t queries, head_dim;
    int32_t value_width;   /* head_dim rounded up to 16 */
    const float *q;        /* [queries][head_dim] */
    /* [queries]: each sees positions [begin, length); neither is ever less than the last one's */
    const int32_t *begin, *length;
    const char *const *pages;
    int64_t keys, values;
    float *scores; /* scratch [queries][score_stride], for whole pages */
    int64_t score_stride;
    float *page; /* scratch [FS_PAGE][value_width] */
    float *most; /* scratch [queries][16] */
    float *out;  /* scratch [queries][value_width] */
    float *const *to; /* [queries]: where results go, [head_dim] each */
    const float *const *next; /* [queries]: what is read afterwards, as much of it */
    float scale, softcap; /* softcap 0: none */
} fs_attend;

/* out rows [0, rows) of panels [panel, panel_end): out = w @ x. */
typedef void fs_matmul_fn(const fs_matrix *w, const fs_acts *x, const fs_out *out, int32_t rows,
                          int32_t panel, int32_t panel_end);

/* One instruction set: a table that starts as the reference and is overridden. */
typedef struct fs_kernels {
    const char *name;
    fs_matmul_fn *matmul[FS_KINDS];
    /* y = x / sqrt(mean(x^2) + eps) * w; x, w, y: [width] */
    void (*rmsnorm)(const float *x, const float *w, int32_t width, float eps, float *y);
    /* y = (x - mean) / sqrt(variance + eps) * w + b; all [width], b may be NULL */
    void (*layernorm)(const float *x, const float *w, const float *b, int32_t width, float eps,
                      float *y);
    /* y = act(gate) * up by an activation of fireside.h; all [width], up may be NULL: y = act(gate) */
    void (*activate)(int32_t activation, const float *gate, const float *up, int32_t width, float *y);
    /* x = x * factor, then cap * tanh(x / cap) where cap is not 0; x: [width] */
    void (*softcap)(float *x, int32_t width, float factor, float cap);
    /* x -> e^(x - max), in place; returns 1 / their sum; x: [width], room for whole vectors */
    float (*softmax)(float *x, int32_t width);
    /* x: [width] -> q: [blocks * 32], scale and shift: [blocks]; offset: see fs_offset() */
    void (*quantise)(const float *x, int32_t width, int32_t offset, int8_t *q, float *scale,
                     int32_t *shift);
    /* the same with a scale for FS_SUPER blocks: scale [ceil(blocks / FS_SUPER)] */
    void (*quantise_wide)(const float *x, int32_t width, int32_t offset, int8_t *q, float *scale,
                          int32_t *shift);
    /* With so many rows and more, matmuls of Q8 and Q4 read no shift: quantise_wide() may be given
     * NULL for it. 0: they always do. */
    int32_t sumless;
    /* Rope: x: [width], in pairs (i, i + width / 2) where `half`, else (2i, 2i + 1), the first times the
     * cosine minus the second times the sine, the second times the cosine plus the first times the sine;
     * turns: [width] cosines for each number of x, then [width] sines, those for firsts negative;
     * -> y: [width], which may be x. */
    void (*rotate)(const float *x, const float *turns, int32_t width, int32_t half, float *y);
    /* scores, softmax and weighted values of up to FS_QUERIES queries */
    void (*attend)(const fs_attend *a);
    /* x: [count] -> y: [count] as 16-bit patterns, to nearest even, at most 65504 in size */
    void (*to_half)(const float *x, int32_t count, uint16_t *y);
    /* halfs: [count] as 16-bit patterns -> y: [count] */
    void (*from_half)(const uint16_t *halfs, int64_t count, float *y);
    /* 16 rows of `words` numbers of 32 bits, `stride` bytes apart -> y: [words][16] */
    void (*turn)(const void *rows, int64_t stride, int32_t words, void *y);
    /* ggml's Q8_0 and Q4_0 for a block of 16 rows: x [32][16] -> a panel's block: groups, scales */
    void (*quantise_q8_0)(const float *x, uint8_t *groups, uint16_t *scales);
    void (*quantise_q4_0)(const float *x, uint8_t *groups, uint16_t *scales);
    /* x: 512 weights -> out: their bytes in a file, as blocks of a type (FS_FROM_...) */
    void (*to_file)(int32_t to, const float *x, uint8_t *out);
} fs_kernels;

/* Bits of a number that lie together in a byte with those of other columns of its row.. */
static inline int fs_low_bits(int kind) { return kind == FS_Q2_K || kind == FS_Q3_K ? 2 : 4; }
/* .. and those above them, which lie behind. */
static inline int fs_high_bits(int kind)
{
    if (kind == FS_Q6_K) return 2;
    return kind == FS_Q5_0 || kind == FS_Q5_1 || kind == FS_Q5_K || kind == FS_Q3_K;
}

/* Bytes of a block of 16 rows without its scales, for kinds from FS_Q8 on. */
static inline int64_t fs_block_bytes(int kind)
{
    return kind == FS_Q8 ? 512 : 64 * (fs_low_bits(kind) + fs_high_bits(kind));
}

/* Bytes of scales behind each block, or behind FS_SUPER of them. */
static inline int64_t fs_scale_bytes(int kind)
{
    if (kind == FS_Q4_K || kind == FS_Q5_K) return 64 + 2 * FS_SUPER * FS_LANES;
    if (kind == FS_Q2_K) return 64 + 4 * FS_SUPER * FS_LANES;
    if (kind == FS_Q3_K || kind == FS_Q6_K) return 32 + 2 * FS_SUPER * FS_LANES;
    if (kind == FS_IQ4_XS) return 32 + FS_SUPER * FS_LANES;
    return kind == FS_Q4_1 || kind == FS_Q5_1 ? 64 : 32;
}

static inline int fs_is_super(int kind) { return kind >= FS_Q4_K; }
/* Levels in the power of two of the largest scale, of kinds that are not super. 1024: the largest scales
 * are what they were, a half has 11 bits; of MXFP4's powers of two all down to the 1024th part. */
static inline float fs_levels_of(int kind)
{
    if (kind == FS_Q8 || kind == FS_Q4 || kind == FS_IQ4_NL) return 127.5f;
    return kind == FS_Q5_1 ? 512.0f : 1024.0f; /* of 5 bits without a sign */
}
static inline int fs_has_minima(int kind)
{
    return kind == FS_Q4_1 || kind == FS_Q5_1 || kind == FS_Q4_K || kind == FS_Q5_K || kind == FS_Q2_K;
}
/* whether the halves of a block have scales of their own */
static inline int fs_has_halves(int kind)
{
    return kind == FS_Q6_K || kind == FS_Q2_K || kind == FS_Q3_K;
}
/* where scale (or minimum) i of a row is among those of FS_SUPER blocks */
static inline int64_t fs_scale_at(int64_t i, int lane) { return i / 2 * 2 * FS_LANES + lane * 2 + i % 2; }
/* whether a number is looked up: the weights plus 128 of the 16 there are, else NULL */
static inline const uint8_t *fs_table(int kind)
{
    /* ggml's kvalues_iq4nl; twice the E2M1 of the Open Compute Project's microscaling formats */
    static const uint8_t uneven[16] = {1,   24,  45,  63,  79,  93,  106, 118,
                                       129, 141, 153, 166, 181, 197, 217, 241};
    static const uint8_t e2m1[16] = {128, 129, 130, 131, 132, 134, 136, 140,
                                     128, 127, 126, 125, 124, 122, 120, 116};
    if (kind == FS_MXFP4) return e2m1;
    return kind == FS_IQ4_NL || kind == FS_IQ4_XS ? uneven : NULL;
}

/* What a kind needs of the sum of a block's q: -offset * sum; its bits as a float; or sums as two numbers of 16 bits in one
 * of 32, the first in its lower half: FS_HALVES of a block's halves, FS_PAIRS of two blocks. */
#define FS_HALVES 0
#define FS_PAIRS 1
#define FS_FLOATS 2
static inline int32_t fs_offset(int kind)
{
    if (kind == FS_Q4_1 || kind == FS_Q5_1) return FS_FLOATS;
    if (fs_has_halves(kind)) return FS_HALVES;
    if (fs_has_minima(kind)) return FS_PAIRS;
    return kind == FS_Q8 || fs_table(kind) ? 128 : kind == FS_Q4 ? 8 : 16;
}
/* what goes out of a number to make a weight: 0 where blocks have minima */
static inline int fs_middle(int kind)
{
    if (kind == FS_Q8 || fs_table(kind)) return 128;
    return kind == FS_Q4 ? 8 : kind == FS_Q5_0 ? 16 : kind == FS_Q6_K ? 32 : kind == FS_Q3_K ? 4 : 0;
}

fs_kernels fs_kernels_reference(void);
#if defined(__x86_64__) || defined(_M_X64)
#define FS_X86 1
fs_kernels fs_kernels_avx2(void);
fs_kernels fs_kernels_avxvnni(void);
fs_kernels fs_kernels_avx512(void);
fs_kernels fs_kernels_amx(void);
#endif
#if defined(__aarch64__) && !defined(__AARCH64EB__)
#define FS_ARM64 1
fs_kernels fs_kernels_neon(void);
fs_kernels fs_kernels_neon_dotprod(void);
#endif

static inline uint32_t fs_bits(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return bits;
}

static inline float fs_float(int32_t bits)
{
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

/* IEEE half precision <-> single, round to nearest even; NaN stays NaN. */
static inline float fs_half_to_float(uint16_t half)
{
    union {
        uint32_t bits;
        float value;
    } out, scale;
    uint32_t magnitude = half & 0x7fffu;
    out.bits = magnitude << 13;
    scale.bits = 0x77800000u; /* 2^112 moves the exponent's bias from 15 to 127 */
    out.value *= scale.value;
    if (magnitude >= 0x7c00u) out.bits |= 0x7f800000u;
    out.bits |= (uint32_t)(half & 0x8000u) << 16;
    return out.value;
}

static inline uint16_t fs_float_to_half(float value)
{
    union {
        float value;
        uint32_t bits;
    } in = {value}, magic;
    uint32_t sign = (in.bits >> 16) & 0x8000u;
    in.bits &= 0x7fffffffu;
    if (in.bits >= 0x47800000u) /* too large, infinite or NaN */
        return (uint16_t)(sign | (in.bits > 0x7f800000u ? 0x7e00u : 0x7c00u));
    if (in.bits < 0x38800000u) { /* subnormal: the addition rounds */
        magic.bits = 0x3f000000u;
        in.value += magic.value;
        return (uint16_t)(sign | (in.bits - magic.bits));
    }
    uint32_t odd = (in.bits >> 13) & 1u;
    in.bits += 0xc8000fffu + odd; /* move the bias from 127 to 15, round to nearest even */
    return (uint16_t)(sign | (in.bits >> 13));
}

static inline int64_t fs_round_up(int64_t value, int64_t unit)
{
    return (value + unit - 1) / unit * unit;
}

#endif
