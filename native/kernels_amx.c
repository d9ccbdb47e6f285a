/* AMX int8 (Intel Sapphire Rapids and later) for many rows at once; the rest is AVX-512's.
 *
 * A tile holds 16 rows of activations x 32 columns, or one block of a panel: 32 columns x 16 rows of
 * weights. Its products are a block's exact integer sums, so the float chain behind them, and with
 * it every result, is the other kernels'. What bounds the speed is that chain, not the tiles: a
 * convert, a multiply and a fma for 512 products. */
#include "kernels.h"
#if defined(FS_X86) && defined(FS_HAVE_AMX)
#include <immintrin.h>
#include <string.h>
#ifdef __clang__
#pragma clang attribute push( \
    __attribute__((target("amx-tile,amx-int8,avx512f,avx512bw,avx512vl,avx512dq,f16c"))), \
    apply_to = function)
#else
#pragma GCC target("amx-tile,amx-int8,avx512f,avx512bw,avx512vl,avx512dq,f16c")
#endif

enum { ROWS = 16, FEWEST = 12 }; /* fewer rows than FEWEST are faster without tiles */
/* tile registers, two of each in turn; macros, because gcc writes the name into the instruction */
#define C0 0
#define C1 1
#define A0 2
#define A1 3
#define B0 4
#define B1 5

typedef struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
} fs_tiles;

static void begin_tiles(void)
{
    fs_tiles t = {.palette = 1};
    for (int i = C0; i <= C1; i++) t.rows[i] = ROWS, t.bytes[i] = FS_LANES * 4;
    for (int i = A0; i <= A1; i++) t.rows[i] = ROWS, t.bytes[i] = FS_BLOCK;
    for (int i = B0; i <= B1; i++) t.rows[i] = FS_BLOCK / 4, t.bytes[i] = FS_LANES * 4;
    /* gcc 12 thinks that loading reads 8 bytes of the 64, and may drop what is stored behind them */
    __asm__ volatile("" : : "r"(&t) : "memory");
    _tile_loadconfig(&t);
}

/* a panel's weights as signed bytes: y [blocks][8 groups][16 rows][4 columns] */
static void unpack_q8(const fs_matrix *w, const uint8_t *panel, int8_t *y)
{
    const __m512i offset = _mm512_set1_epi8(-128);
    for (int64_t i = 0; i < (int64_t)w->blocks * 512; i += 64)
        _mm512_store_si512(y + i, _mm512_xor_si512(_mm512_loadu_si512(panel + i), offset));
}

static void unpack_q4(const fs_matrix *w, const uint8_t *panel, int8_t *y)
{
    const __m512i mask = _mm512_set1_epi8(15), offset = _mm512_set1_epi8(8);
    for (int64_t b = 0; b < w->blocks; b++, panel += 256, y += 512)
        for (int g = 0; g < 4; g++) {
            __m512i a = _mm512_loadu_si512(panel + g * 64);
            __m512i low = _mm512_and_si512(a, mask);
            __m512i high = _mm512_and_si512(_mm512_srli_epi16(a, 4), mask);
            _mm512_store_si512(y + g * 64, _mm512_sub_epi8(low, offset));
            _mm512_store_si512(y + (g + 4) * 64, _mm512_sub_epi8(high, offset));
        }
}

#define MULTIPLY(A, B, C, block, sums)                       \
    do {                                                     \
        _tile_loadd(A, q + (block) * FS_BLOCK, x->q_stride); \
        _tile_loadd(B, weights + (block) * 512, 64);         \
        _tile_zero(C);                                       \
        _tile_dpbssd(C, A, B);                               \
        _tile_stored(C, sums, 64);                           \
    } while (0)

#define ACCUMULATE(block, sums)                                                              \
    do {                                                                                     \
        const __m256i *halfs = (const __m256i *)(scales + (block) * 32);                     \
        const float *xs = scale + (block);                                                   \
        __m512 d = _mm512_cvtph_ps(_mm256_loadu_si256(halfs));                               \
        _Pragma("GCC unroll 16") for (int r = 0; r < ROWS; r++) {                            \
            __m512 s = _mm512_cvtepi32_ps(_mm512_load_si512((sums) + r * FS_LANES));         \
            __m512 f = _mm512_mul_ps(d, _mm512_set1_ps(xs[r * x->b_stride]));                \
            acc[r] = _mm512_fmadd_ps(s, f, acc[r]);                                          \
        }                                                                                    \
    } while (0)

/* out rows [row, row + 16), of which `rows` are kept, of one panel; weights as unpacked */
static void tile_rows(const fs_matrix *w, const int8_t *weights, const uint8_t *scales,
                      const fs_acts *x, const fs_out *out, int32_t row, int32_t rows,
                      int32_t panel)
{
    const int8_t *q = x->q + row * x->q_stride;
    const float *scale = x->scale + row * x->b_stride;
    const int64_t last = w->blocks - 1;
    _Alignas(64) int32_t sums[2][ROWS * FS_LANES];
    __m512 acc[ROWS];
    int64_t b = 0;
    _Pragma("GCC unroll 16") for (int r = 0; r < ROWS; r++) acc[r] = _mm512_setzero_ps();
    MULTIPLY(A0, B0, C0, 0, sums[0]);
    /* The next block's tiles run behind this one's floats. Tried: four blocks in flight, stores
     * put off behind the floats: 10% slower. */
    for (; b + 2 <= last; b += 2) {
        MULTIPLY(A1, B1, C1, b + 1, sums[1]);
        ACCUMULATE(b, sums[0]);
        MULTIPLY(A0, B0, C0, b + 2, sums[0]);
        ACCUMULATE(b + 1, sums[1]);
    }
    if (b < last) {
        MULTIPLY(A1, B1, C1, b + 1, sums[1]);
        ACCUMULATE(b, sums[0]);
        ACCUMULATE(b + 1, sums[1]);
    } else {
        ACCUMULATE(b, sums[0]);
    }
    int32_t n = w->rows - panel * FS_LANES;
    __mmask16 lanes = n >= FS_LANES ? 0xffff : (__mmask16)((1u << n) - 1u);
    _Pragma("GCC unroll 16") for (int r = 0; r < ROWS; r++) {
        if (r >= rows) break;
        float *p = out->data + (row + r) * out->stride + (int64_t)panel * FS_LANES;
        if (out->add) acc[r] = _mm512_add_ps(_mm512_maskz_loadu_ps(lanes, p), acc[r]);
        if (out->bias) {
            const float *bias = out->bias + (int64_t)panel * FS_LANES;
            acc[r] = _mm512_add_ps(acc[r], _mm512_maskz_loadu_ps(lanes, bias));
        }
        _mm512_mask_storeu_ps(p, lanes, acc[r]);
    }
}

static void matmul_tiles(const fs_matrix *w, const fs_acts *x, const fs_out *out, int32_t rows,
                         int32_t panel, int32_t panel_end)
{
    const int64_t size = w->kind == FS_Q8 ? 512 : 256;
    begin_tiles();
    for (; panel < panel_end; panel++) {
        const uint8_t *packed = w->data + panel * w->panel_bytes;
        if (w->kind == FS_Q8)
            unpack_q8(w, packed, x->scratch);
        else
            unpack_q4(w, packed, x->scratch);
        for (int32_t row = 0; row < rows; row += ROWS)
            tile_rows(w, x->scratch, packed + w->blocks * size, x, out, row,
                      rows - row < ROWS ? rows - row : ROWS, panel);
    }
    _tile_release();
}

#ifdef __clang__
#pragma clang attribute pop
#endif

static void matmul(const fs_matrix *w, const fs_acts *x, const fs_out *out, int32_t rows,
                   int32_t panel, int32_t panel_end)
{
    int32_t rest = rows % ROWS, tiled = rest < FEWEST ? rows - rest : rows;
    if (tiled) matmul_tiles(w, x, out, tiled, panel, panel_end);
    if (tiled < rows) {
        fs_acts few = *x;
        fs_out below = *out;
        few.q += tiled * x->q_stride;
        few.scale += tiled * x->b_stride;
        few.shift += tiled * x->b_stride;
        below.data += tiled * out->stride;
        fs_kernels_avx512().matmul[w->kind](w, &few, &below, rows - tiled, panel, panel_end);
    }
}

fs_kernels fs_kernels_amx(void)
{
    fs_kernels kernels = fs_kernels_avx512();
    kernels.name = "amx_int8";
    kernels.matmul[FS_Q8] = matmul;
    kernels.matmul[FS_Q4] = matmul;
    return kernels;
}
#endif
