/* AMX int8 (Intel Sapphire Rapids and later) for many rows at once; the rest is AVX-512's.
 *
 * A weight of Q8 or Q4 times its block's level (see fs_levels_of) has up to 16 bits: two planes of
 * bytes, whose products with the activations tiles add up over FS_SUPER blocks. What one plane's
 * tile holds then counts 256 (Q4: 16) of the other's; together they are the exact sum that the other
 * kernels have, so the float chain behind it, and with it every result, is theirs. The other types
 * are in amx_planes_k.h.
 *
 * Tile instructions leave room for others, but only for those that stand right beside them: a tile
 * that is stored holds up all that comes behind. So the floats of two tiles before stand between
 * the products of one. */
#include "kernels.h"
#if defined(FS_X86) && defined(FS_HAVE_AMX)
#include <immintrin.h>
#include <string.h>
#ifdef __clang__
#pragma clang attribute push( \
    __attribute__((target("amx-tile,amx-int8,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,f16c"))), \
    apply_to = function)
#else
#pragma GCC target("amx-tile,amx-int8,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,f16c")
#endif

#define FS_ALWAYS static inline __attribute__((always_inline))

enum { ROWS = 16, FEWEST = 14, FEWEST_K = 11 }; /* fewer rows are faster without tiles */
enum { FEW = 2 };                /* tiles of rows, with which reading weights takes as long as products */
enum { MOST = 128 };             /* rows for which a panel's weights are taken apart once */
enum { STEP = 64, STEPS = FS_SUPER * FS_BLOCK / STEP }; /* columns of a tile */

typedef struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
} fs_tiles;

static void begin_tiles(void)
{
    fs_tiles t = {.palette = 1};
    for (int i = 0; i < 8; i++) t.rows[i] = ROWS, t.bytes[i] = 64;
    /* gcc 12 thinks that loading reads 8 bytes of the 64, and may drop what is stored behind them */
    __asm__ volatile("" : : "r"(&t) : "memory");
    _tile_loadconfig(&t);
}

/* what a thread works with: two panels, FS_SUPER blocks of them at a time */
typedef struct {
    _Alignas(64) uint8_t planes[2][STEPS][2][STEP * FS_LANES]; /* the high bytes, then the low ones */
    /* of the last two tiles' rows, line by line in turn: what is stored of one never seems to be what
     * is loaded of the other, as it would a page (4 KiB) apart */
    int32_t sums[4][ROWS][2][FS_LANES];
    float acc[2][MOST * FS_LANES];
    float unit[4][2][FS_LANES]; /* of the last times FS_SUPER blocks; see fs_levels() */
    float low_unit[4][2][FS_LANES]; /* of minima */
    __m512i minima[4][2][FS_SUPER]; /* of pairs of (half) blocks; floats of blocks */
} fs_work;

#include "amx_planes_k.h"

/* Weights of n blocks times their levels, a block is [8 groups][16 rows][4 columns]. Bytes of even and
 * of odd columns are multiplied by a level as the unsigned operand. */
static void unpack_q8(const uint8_t *w, const __m512i *levels, int64_t n, uint8_t planes[][2][1024],
                      const char *next)
{
    const __m512i offset = _mm512_set1_epi8(-128);
    const __m512i swapped = _mm512_set4_epi32(0x0e0f0c0d, 0x0a0b0809, 0x06070405, 0x02030001);
    const __mmask64 odd = 0xaaaaaaaaaaaaaaaau;
    for (int64_t b = 0; b < n; b++, w += 512) {
        uint8_t *high = planes[b / 2][0] + b % 2 * 512, *low = planes[b / 2][1] + b % 2 * 512;
        const __m512i upper = _mm512_slli_epi16(levels[b], 8);
        _Pragma("GCC unroll 8") for (int g = 0; g < 8; g++) {
            __m512i a = _mm512_xor_si512(_mm512_loadu_si512(w + g * 64), offset);
            if (next && g % 2 == 0) _mm_prefetch(next + b * 256 + g * 32, _MM_HINT_T1);
            __m512i x = _mm512_maddubs_epi16(levels[b], a), y = _mm512_maddubs_epi16(upper, a);
            _mm512_store_si512(high + g * 64, _mm512_mask_shuffle_epi8(y, ~odd, x, swapped));
            _mm512_store_si512(low + g * 64, _mm512_mask_shuffle_epi8(x, odd, y, swapped));
        }
    }
}

/* The same where levels may be negative, as no file of ggml's has them: they are multiplied as numbers
 * of 16 bits. */
static void unpack_signed_q8(const uint8_t *w, const __m512i *levels, int64_t n, uint8_t planes[][2][1024])
{
    const __m512i offset = _mm512_set1_epi8(-128);
    const __mmask64 odd = 0xaaaaaaaaaaaaaaaau;
    for (int64_t b = 0; b < n; b++, w += 512) {
        uint8_t *high = planes[b / 2][0] + b % 2 * 512, *low = planes[b / 2][1] + b % 2 * 512;
        for (int g = 0; g < 8; g++) {
            __m512i a = _mm512_xor_si512(_mm512_loadu_si512(w + g * 64), offset);
            __m512i x = _mm512_srai_epi16(_mm512_slli_epi16(a, 8), 8);
            __m512i y = _mm512_srai_epi16(a, 8);
            x = _mm512_mullo_epi16(x, levels[b]);
            y = _mm512_mullo_epi16(y, levels[b]);
            _mm512_store_si512(high + g * 64, _mm512_mask_mov_epi8(_mm512_srli_epi16(x, 8), odd, y));
            _mm512_store_si512(low + g * 64, _mm512_mask_mov_epi8(x, odd, _mm512_slli_epi16(y, 8)));
        }
    }
}

/* A level's size is 16 * up + down, both up to 15, so their products with -8..8 fit into a byte: two
 * bytes are multiplied at once as one number of 16 bits. Where the level is negative its sign goes to
 * the weight: u - 8 becomes 8 - u = (15 - u) - 7, and 15 - u is u with its bits turned over. */
static void unpack_q4(const uint8_t *w, const __m512i *levels, int64_t n, uint8_t planes[][2][1024],
                      const char *next)
{
    const __m512i mask = _mm512_set1_epi8(15);
    for (int64_t b = 0; b < n; b++, w += 256) {
        const __m512i negative = _mm512_srai_epi16(levels[b], 15), turned = _mm512_and_si512(negative, mask);
        const __m512i size = _mm512_abs_epi16(levels[b]), up = _mm512_srli_epi16(size, 4);
        const __m512i down = _mm512_and_si512(size, _mm512_set1_epi16(15));
        const __m512i middle = _mm512_add_epi8(_mm512_set1_epi8(8), negative); /* 8 or 7 */
        const __m512i less_up = _mm512_mullo_epi16(up, middle), less_down = _mm512_mullo_epi16(down, middle);
        uint8_t *high = planes[b / 2][0] + b % 2 * 512, *low = planes[b / 2][1] + b % 2 * 512;
        _Pragma("GCC unroll 8") for (int g = 0; g < 8; g++) {
            __m512i a = _mm512_loadu_si512(w + g % 4 * 64);
            if (g >= 4) a = _mm512_srli_epi16(a, 4);
            if (next && g % 4 == 0) _mm_prefetch(next + b * 128 + g * 16, _MM_HINT_T1);
            const __m512i u = _mm512_ternarylogic_epi64(a, mask, turned, 0x6a); /* a & mask ^ turned */
            _mm512_store_si512(high + g * 64, _mm512_sub_epi8(_mm512_mullo_epi16(u, up), less_up));
            _mm512_store_si512(low + g * 64, _mm512_sub_epi8(_mm512_mullo_epi16(u, down), less_down));
        }
    }
}

static int any_negative(const __m512i *levels, int64_t n)
{
    __m512i any = levels[0];
    for (int64_t i = 1; i < n; i++) any = _mm512_or_si512(any, levels[i]);
    return _mm512_movepi16_mask(any) != 0;
}

/* A tile of 16 rows of x and what becomes of its sums. */
typedef struct {
    int32_t row, rows;   /* rows that are kept */
    int32_t panel, both; /* whether there is a panel + 1 */
    int32_t super, first, last; /* which of the row's times FS_SUPER blocks */
    int32_t unit;               /* where theirs is */
} fs_item;

/* What adding up an item's sums takes, in registers as far as there are any. */
typedef struct {
    const float *scale;
    const int32_t *pairs; /* of sums of x, for minima */
    int64_t scale_step;
    __m512 unit[2], low_unit[2];
    const __m512i *minima[2];
    const int32_t *sums;
    float *acc;
    __mmask16 going_on; /* none for the first item of a row */
    float *to;
    int64_t stride;
    __mmask16 lanes[2], add;
    __m512 bias[2];
    int32_t rows;
} fs_adding;

/* how minima and the sums of x lie, see fs_offset() */
#define MINIMA(KIND) fs_offset(KIND)

FS_ALWAYS fs_adding adding(const int KIND, const fs_matrix *w, const fs_acts *x, const fs_out *out, fs_work *work,
                           const fs_item *item, int parity)
{
    const int32_t pair = item->super * (MINIMA(KIND) == FS_PAIRS ? FS_SUPER / 2 : FS_SUPER);
    fs_adding a = {.scale = x->scale + item->row * x->b_stride + item->super,
                   .pairs = x->shift + item->row * x->b_stride + pair,
                   .scale_step = x->b_stride,
                   .sums = work->sums[0][0][parity],
                   .acc = work->acc[0] + item->row % MOST * FS_LANES,
                   .going_on = item->first ? 0 : 0xffff,
                   .to = out->data + item->row * out->stride + (int64_t)item->panel * FS_LANES,
                   .stride = out->stride,
                   .add = out->add ? 0xffff : 0,
                   .rows = item->rows};
    for (int p = 0; p < 2; p++) {
        const int32_t n = w->rows - (item->panel + p) * FS_LANES;
        a.lanes[p] = n >= FS_LANES ? 0xffff : n > 0 ? (__mmask16)((1u << n) - 1u) : 0;
        if (p && !item->both) a.lanes[p] = 0;
        a.unit[p] = _mm512_load_ps(work->unit[item->unit][p]);
        if (fs_has_minima(KIND)) a.low_unit[p] = _mm512_load_ps(work->low_unit[item->unit][p]);
        a.minima[p] = work->minima[item->unit][p];
        a.bias[p] = out->bias ? _mm512_maskz_loadu_ps(a.lanes[p], out->bias + (item->panel + p) * FS_LANES)
                              : _mm512_setzero_ps();
    }
    return a;
}

#define PLANES(KIND) (plane_bits(KIND) ? 2 : 1)

/* the sums of row r of an item, times its scales, to what the panels have of that row by now */
FS_ALWAYS void add_row(const int KIND, const int LAST, const int BIAS, const fs_adding *a, const int r)
{
    const __m512 scale = _mm512_set1_ps(a->scale[r * a->scale_step]);
    __m512i rest[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
    __m512 low[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
    const int32_t *pairs = a->pairs + r * a->scale_step;
    if (MINIMA(KIND) == FS_FLOATS) {
        _Pragma("GCC unroll 8") for (int i = 0; i < FS_SUPER; i++) {
            const __m512 sum = _mm512_set1_ps(fs_float(pairs[i]));
            low[0] = _mm512_fmadd_ps(_mm512_castsi512_ps(a->minima[0][i]), sum, low[0]);
            low[1] = _mm512_fmadd_ps(_mm512_castsi512_ps(a->minima[1][i]), sum, low[1]);
        }
    } else if (fs_has_minima(KIND)) {
        _Pragma("GCC unroll 8") for (int i = 0; i < FS_SUPER / (2 - fs_has_halves(KIND)); i++) {
            const __m512i two = _mm512_set1_epi32(pairs[i]);
            rest[0] = _mm512_dpwssd_epi32(rest[0], two, a->minima[0][i]);
            rest[1] = _mm512_dpwssd_epi32(rest[1], two, a->minima[1][i]);
        }
    }
    _Pragma("GCC unroll 2") for (int p = 0; p < 2; p++) {
        float *acc = a->acc + (p * MOST + r) * FS_LANES;
        const int32_t *high = a->sums + (2 * p * ROWS + r) * 2 * FS_LANES;
        __m512i sum = _mm512_load_si512(high);
        if (PLANES(KIND) == 2) {
            sum = _mm512_slli_epi32(sum, plane_bits(KIND));
            sum = _mm512_add_epi32(sum, _mm512_load_si512(high + 2 * ROWS * FS_LANES));
        }
        __m512 y = _mm512_cvtepi32_ps(sum), before = _mm512_maskz_load_ps(a->going_on, acc);
        if (fs_has_minima(KIND)) {
            if (MINIMA(KIND) != FS_FLOATS) low[p] = _mm512_mul_ps(_mm512_cvtepi32_ps(rest[p]), a->low_unit[p]);
            y = _mm512_fmadd_ps(_mm512_fmadd_ps(y, a->unit[p], low[p]), scale, before);
        } else {
            y = _mm512_fmadd_ps(y, _mm512_mul_ps(a->unit[p], scale), before);
        }
        if (!LAST) {
            _mm512_store_ps(acc, y);
        } else {
            float *to = a->to + r * a->stride + p * FS_LANES;
            const __mmask16 lanes = r < a->rows ? a->lanes[p] : 0;
            /* nothing is added to what is kept, not even a zero: it might be -0 */
            y = _mm512_mask_add_ps(y, a->add, _mm512_maskz_loadu_ps(lanes & a->add, to), y);
            if (BIAS) y = _mm512_add_ps(y, a->bias[p]);
            _mm512_mask_storeu_ps(to, lanes, y);
        }
        __asm__ volatile("" : "+v"(y)); /* stays where it is: beside a product */
    }
}

#define PRODUCT(C, A, B, LOW)                       \
    do {                                            \
        if (plane_unsigned(KIND, LOW))              \
            _tile_dpbsud(C, A, B);                  \
        else                                        \
            _tile_dpbssd(C, A, B);                  \
    } while (0)
#define STORE_SUMS(i) _tile_stored(i, sums + (i) * ROWS * 2 * FS_LANES, 2 * 64)
#define BESIDE(r)                                                    \
    do {                                                             \
        if (BEFORE) add_row(KIND, BEFORE > 1, BEFORE > 2, &a, r);    \
        if (results) {                                               \
            __builtin_prefetch(results, 1);                          \
            __builtin_prefetch(results + FS_LANES, 1);               \
            results += a.stride;                                     \
        }                                                            \
    } while (0)

/* 64 columns of a tile; tile registers: 0 to 3 sums of both panels' planes, 4 activations, 5 to 7
 * weights. Activations go past the first cache: they are read once before the weights' planes, which are
 * read again and again, would have to make room for them. */
#define COLUMNS(k)                                                   \
    do {                                                             \
        _tile_stream_loadd(4, q + (k) * STEP, x->q_stride);          \
        for (int i = 0; i < lines; i++, next += 64) {                \
            _mm_prefetch(next, _MM_HINT_T1);                              \
            _mm_prefetch(next + next_panel, _MM_HINT_T1);             \
        }                                                            \
        if ((k) == 0 && store) STORE_SUMS(0);                          \
        if ((k) == 0) _tile_zero(0);                                 \
        _tile_loadd(5, work->planes[0][k][0], 64);                   \
        PRODUCT(0, 4, 5, 0);                                         \
        BESIDE(4 * (k));                                             \
        if (PLANES(KIND) == 2) {                                     \
            if ((k) == 0 && store) STORE_SUMS(1);                      \
            if ((k) == 0) _tile_zero(1);                             \
            _tile_loadd(6, work->planes[0][k][1], 64);               \
            PRODUCT(1, 4, 6, 1);                                     \
        }                                                            \
        BESIDE(4 * (k) + 1);                                         \
        if ((k) == 0 && store) STORE_SUMS(2);                          \
        if ((k) == 0) _tile_zero(2);                                 \
        _tile_loadd(7, work->planes[1][k][0], 64);                   \
        PRODUCT(2, 4, 7, 0);                                         \
        BESIDE(4 * (k) + 2);                                         \
        if (PLANES(KIND) == 2) {                                     \
            if ((k) == 0 && store) STORE_SUMS(3);                      \
            if ((k) == 0) _tile_zero(3);                             \
            _tile_loadd(5, work->planes[1][k][1], 64);               \
            PRODUCT(3, 4, 5, 1);                                     \
        }                                                            \
        BESIDE(4 * (k) + 3);                                         \
    } while (0)

FS_ALWAYS void store_sums(const int KIND, int32_t *sums)
{
    STORE_SUMS(0);
    STORE_SUMS(2);
    if (PLANES(KIND) == 1) return;
    STORE_SUMS(1);
    STORE_SUMS(3);
}

/* The products of an item's `steps` times 64 columns, beside the floats of the item before the last
 * one, whose own sums are stored on the way: into sums[!parity]. `results`: where its results will be
 * written, which takes long where that is in no cache; NULL: it has none yet. */
FS_ALWAYS void run_item(const int KIND, const int BEFORE, const fs_acts *x, fs_work *work, const int8_t *q,
                        const int steps, const fs_adding a, const int store, const int parity,
                        const char *next, int64_t next_panel, const int lines, const float *results)
{
    int32_t *sums = work->sums[0][0][!parity];
    COLUMNS(0);
    if (steps > 1) COLUMNS(1);
    if (steps > 2) COLUMNS(2);
    if (steps > 3) COLUMNS(3);
    if (BEFORE)
        for (int r = 4 * steps; r < ROWS; r++) BESIDE(r);
}

/* The scales of the FS_SUPER blocks of two panels at `numbers`, block `first` and on. */
FS_ALWAYS void fetch_scales(const int KIND, const fs_matrix *w, const char *numbers, int32_t first)
{
    const int64_t bytes = fs_scale_bytes(KIND) * (fs_is_super(KIND) ? 1 : FS_SUPER);
    const char *scales = numbers + (w->blocks - first) * fs_block_bytes(KIND) + first / FS_SUPER * bytes;
    for (int64_t i = 0; i < bytes; i += 64) {
        _mm_prefetch(scales + i, _MM_HINT_T0);
        _mm_prefetch(scales + w->panel_bytes + i, _MM_HINT_T0);
    }
}

/* Rows [row, row + rows) of panels [panel, panel_end), at most MOST rows. Items go on from one pair of
 * panels to the next: the floats of an item are two items behind its products. */
FS_ALWAYS void matmul_tiles(const int KIND, const fs_matrix *w, const fs_acts *x, const fs_out *out,
                            int32_t row, int32_t rows, int32_t panel, int32_t panel_end)
{
    const int64_t size = fs_block_bytes(KIND);
    const int32_t tiles = (rows + ROWS - 1) / ROWS;
    fs_work here, *work = &here;
    fs_item items[2] = {{0}};
    int32_t done = 0, unit = 0;
    for (; panel < panel_end; panel += 2) {
        const int both = panel + 1 < panel_end;
        for (int32_t first = 0; first < w->blocks; first += FS_SUPER, unit = (unit + 1) % 4) {
            const int64_t n = w->blocks - first < FS_SUPER ? w->blocks - first : FS_SUPER;
            const int32_t super = first / FS_SUPER;
            const uint8_t *numbers = w->data + panel * w->panel_bytes + first * size;
            /* What comes next: with few rows half of it is fetched while weights are taken apart, the
             * rest beside the products. */
            const char *next = (const char *)(first + FS_SUPER < w->blocks
                                                  ? numbers + FS_SUPER * size
                                                  : numbers - first * size + 2 * w->panel_bytes);
            const int early = (KIND == FS_Q8 || KIND == FS_Q4) && tiles <= FEW;
            for (int p = 0; p < 2; p++) {
                const char *ahead = early ? next + p * w->panel_bytes : NULL;
                __m512i levels[FS_SUPER];
                const uint8_t *from = numbers + (both ? p : 0) * w->panel_bytes;
                const uint8_t *scales = from + (w->blocks - first) * size;
                if (fs_is_super(KIND)) {
                    unpack_k(KIND, from, scales + super * fs_scale_bytes(KIND), work->planes[p],
                             work->unit[unit][p], work->low_unit[unit][p], work->minima[unit][p]);
                    continue;
                }
                scales += first * fs_scale_bytes(KIND);
                find_levels(scales, fs_scale_bytes(KIND), fs_levels_of(KIND), n, levels, work->unit[unit][p]);
                if (KIND != FS_Q8 && KIND != FS_Q4)
                    unpack_levels(KIND, from, levels, n, work->planes[p]);
                else if (KIND == FS_Q4)
                    unpack_q4(from, levels, n, work->planes[p], ahead);
                else if (any_negative(levels, n))
                    unpack_signed_q8(from, levels, n, work->planes[p]);
                else
                    unpack_q8(from, levels, n, work->planes[p], ahead);
                if (fs_has_minima(KIND))
                    find_minima(scales + 32, fs_scale_bytes(KIND), n, work->minima[unit][p]);
                if (n % 2) {
                    memset(work->planes[p][n / 2][0] + 512, 0, 512);
                    memset(work->planes[p][n / 2][1] + 512, 0, 512);
                }
            }
            const int steps = (int)((n + 1) / 2);
            const int64_t done_early = early ? FS_SUPER * size / 2 : 0;
            const int lines = (int)((FS_SUPER * size - done_early) / 64 + tiles * steps - 1) / (tiles * steps);
            fetch_scales(KIND, w, next, first + FS_SUPER < w->blocks ? first + FS_SUPER : 0);
            __asm__ volatile("" : : : "memory"); /* what tiles load is not known to the compiler */
            for (int32_t t = 0; t < tiles; t++, done++) {
                const int32_t at = row + t * ROWS, parity = done % 2;
                const fs_item item = {at, row + rows - at < ROWS ? row + rows - at : ROWS, panel, both,
                                      super, first == 0, first + FS_SUPER >= w->blocks, unit};
                const int8_t *q = x->q + at * x->q_stride + first * FS_BLOCK;
                const fs_item *before = &items[parity], *last = &items[!parity];
                const float *results = !last->last ? NULL
                                                   : out->data + last->row * out->stride +
                                                         (int64_t)last->panel * FS_LANES;
                const char *ahead = next + done_early + t * steps * lines * 64;
                const fs_adding a = adding(KIND, w, x, out, work, before, parity);
#define RUN(BEFORE) \
    run_item(KIND, BEFORE, x, work, q, steps, a, done > 0, parity, ahead, w->panel_bytes, lines, results)
                if (done < 2)
                    RUN(0);
                else if (!before->last)
                    RUN(1);
                else if (!out->bias)
                    RUN(2);
                else
                    RUN(3);
                items[parity] = item;
            }
        }
    }
    if (!done) return;
    store_sums(KIND, work->sums[0][0][(done - 1) % 2]);
    for (int32_t i = done > 1 ? done - 2 : 0; i < done; i++) {
        const fs_adding a = adding(KIND, w, x, out, work, &items[i % 2], i % 2);
        for (int r = 0; r < ROWS; r++)
            if (!items[i % 2].last)
                add_row(KIND, 0, 0, &a, r);
            else if (!out->bias)
                add_row(KIND, 1, 0, &a, r);
            else
                add_row(KIND, 1, 1, &a, r);
    }
}

#define FS_TILED(name, KIND)                                                                           \
    static void name(const fs_matrix *w, const fs_acts *x, const fs_out *out, int32_t row, int32_t rows, \
                     int32_t panel, int32_t panel_end)                                                   \
    {                                                                                                    \
        begin_tiles();                                                                                   \
        matmul_tiles(KIND, w, x, out, row, rows, panel, panel_end);                                      \
        _tile_release();                                                                                 \
    }
FS_TILED(matmul_q8, FS_Q8)
FS_TILED(matmul_q4, FS_Q4)
FS_TILED(matmul_q4_1, FS_Q4_1)
FS_TILED(matmul_q5_0, FS_Q5_0)
FS_TILED(matmul_q5_1, FS_Q5_1)
FS_TILED(matmul_iq4_nl, FS_IQ4_NL)
FS_TILED(matmul_mxfp4, FS_MXFP4)
FS_TILED(matmul_q4_k, FS_Q4_K)
FS_TILED(matmul_q5_k, FS_Q5_K)
FS_TILED(matmul_q6_k, FS_Q6_K)
FS_TILED(matmul_q2_k, FS_Q2_K)
FS_TILED(matmul_q3_k, FS_Q3_K)
FS_TILED(matmul_iq4_xs, FS_IQ4_XS)

typedef void fs_tiled(const fs_matrix *, const fs_acts *, const fs_out *, int32_t, int32_t, int32_t, int32_t);
static fs_tiled *const TILED[FS_KINDS] = {
    [FS_Q8] = matmul_q8,         [FS_Q4] = matmul_q4,       [FS_Q4_1] = matmul_q4_1, [FS_Q5_0] = matmul_q5_0,
    [FS_Q5_1] = matmul_q5_1,     [FS_Q4_K] = matmul_q4_k,   [FS_Q5_K] = matmul_q5_k, [FS_Q6_K] = matmul_q6_k,
    [FS_Q2_K] = matmul_q2_k,     [FS_Q3_K] = matmul_q3_k,   [FS_MXFP4] = matmul_mxfp4,
    [FS_IQ4_NL] = matmul_iq4_nl, [FS_IQ4_XS] = matmul_iq4_xs};

#ifdef __clang__
#pragma clang attribute pop
#endif

static void matmul(const fs_matrix *w, const fs_acts *x, const fs_out *out, int32_t rows,
                   int32_t panel, int32_t panel_end)
{
    if (rows < (w->kind > FS_Q4 ? FEWEST_K : FEWEST)) {
        fs_kernels_avx512().matmul[w->kind](w, x, out, rows, panel, panel_end);
        return;
    }
    for (int32_t row = 0; row < rows; row += MOST) {
        const int32_t n = rows - row < MOST ? rows - row : MOST;
        TILED[w->kind](w, x, out, row, n, panel, panel_end);
    }
}

fs_kernels fs_kernels_amx(void)
{
    fs_kernels kernels = fs_kernels_avx512();
    kernels.name = "amx_int8";
    kernels.sumless = FEWEST;
    for (int kind = 0; kind < FS_KINDS; kind++)
        if (TILED[kind]) kernels.matmul[kind] = matmul;
    return kernels;
}
#endif
