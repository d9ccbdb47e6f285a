/* The bodies of all kernels, written once over a virtual vector of 16 lanes.
 *
 * An instruction set's file defines v16, i16x, x4, w64 and their small functions (see
 * kernels_reference.c, which says what each means), its tile sizes, and includes this file. Every
 * operation is rounded as written: no contraction, explicit fma, fixed trees for reductions. */

#if defined(FS_UNROLL)
#elif defined(__clang__)
#define FS_UNROLL _Pragma("clang loop unroll(full)")
#else
#define FS_UNROLL _Pragma("GCC unroll 16")
#endif

#include "functions_body.h"

/* two numbers of 16 bits in one */
FS_INLINE int32_t fs_two(int32_t first, int32_t second)
{
    return (int32_t)((uint32_t)second << 16 | ((uint32_t)first & 0xffff));
}

/* GROUP activations share a scale: 32, or 256; SUMS: whether there is a shift */
FS_INLINE void fs_round(const int GROUP, const int SUMS, const float *x, int32_t width, int32_t offset, int8_t *q,
                        float *scale, int32_t *shift)
{
    for (int32_t group = 0; group < width; group += GROUP, scale++) {
        const int32_t end = width - group < GROUP ? width : group + GROUP;
        v16 most[4] = {v_set(0.0f), v_set(0.0f), v_set(0.0f), v_set(0.0f)}; /* not one after the other */
        int32_t at = group;
        for (; end - at >= 4 * FS_LANES; at += 4 * FS_LANES)
            FS_UNROLL for (int i = 0; i < 4; i++)
                most[i] = v_max(v_abs(v_load(x + at + i * FS_LANES)), most[i]);
        for (; at < end; at += FS_LANES)
            most[0] = v_max(v_abs(end - at >= FS_LANES ? v_load(x + at) : v_load_n(x + at, end - at)), most[0]);
        const float amax = v_hmax(v_max(v_max(most[0], most[1]), v_max(most[2], most[3])));
        /* below 1e-30 the inverse could overflow: such a block counts as zero */
        const v16 inverse = v_set(amax > 1e-30f ? 127.0f / amax : 0.0f);
        *scale = amax > 1e-30f ? amax / 127.0f : 0.0f;
        for (int32_t i = group; i < end; i += FS_BLOCK, q += FS_BLOCK, shift += SUMS) {
            const int n = end - i;
            v16 a = n >= FS_LANES ? v_load(x + i) : v_load_n(x + i, n);
            v16 b = n >= FS_BLOCK ? v_load(x + i + FS_LANES)
                    : n > FS_LANES ? v_load_n(x + i + FS_LANES, n - FS_LANES)
                                   : v_set(0.0f);
            int32_t first = v_store_i8(q, v_mul(a, inverse));
            int32_t second = v_store_i8(q + FS_LANES, v_mul(b, inverse));
            if (!SUMS) continue;
            const int32_t block = i / FS_BLOCK;
            if (offset == FS_HALVES)
                *shift = fs_two(first, second);
            else if (offset == FS_FLOATS)
                *shift = (int32_t)fs_bits((float)(first + second));
            else if (offset == FS_PAIRS && block % 2)
                shift[block / 2 - block] = fs_two(shift[block / 2 - block], first + second);
            else if (offset == FS_PAIRS)
                shift[block / 2 - block] = first + second;
            else
                *shift = -offset * (first + second);
        }
    }
    /* of blocks that are not there: AMX multiplies theirs by zero */
    if (SUMS && offset == FS_FLOATS)
        for (int32_t block = (width + FS_BLOCK - 1) / FS_BLOCK; block % FS_SUPER; block++) *shift++ = 0;
}

static void fs_quantise(const float *x, int32_t width, int32_t offset, int8_t *q, float *scale,
                        int32_t *shift)
{
    fs_round(FS_BLOCK, 1, x, width, offset, q, scale, shift);
}

static void fs_quantise_wide(const float *x, int32_t width, int32_t offset, int8_t *q, float *scale,
                             int32_t *shift)
{
    if (shift)
        fs_round(FS_SUPER * FS_BLOCK, 1, x, width, offset, q, scale, shift);
    else
        fs_round(FS_SUPER * FS_BLOCK, 0, x, width, offset, q, scale, NULL);
}

/* One row: what is prefetched stands `far` bytes behind what is read now, from block `turn` on
 * `behind` bytes. Panels smaller than `small`: the same place of the next ones, so that no stream ever
 * begins cold. Others: a little ahead in each panel's own stream, at its end the beginning of the next.
 * Behind the last panel of all the thread goes on at x->ahead. */
typedef struct {
    int64_t turn, far, behind;
} fs_prefetching;

FS_INLINE fs_prefetching fs_plan(const int P, const fs_matrix *w, const fs_acts *x, int32_t panel, int64_t blocks,
                                 int64_t block_bytes, const int64_t small)
{
    enum { FAR = 2048 };
    const int64_t size = P * w->panel_bytes;
    fs_prefetching f = {blocks - (FAR + block_bytes - 1) / block_bytes, FAR, size};
    if (size < small || f.turn < 0) f.turn = 0;
    if (x->ahead && panel + P >= x->ahead_end)
        f.behind = (intptr_t)x->ahead - (intptr_t)w->data - panel * w->panel_bytes;
    f.behind -= f.turn * block_bytes;
    return f;
}

FS_INLINE fs_prefetching fs_plan_ahead(const int P, const fs_matrix *w, const fs_acts *x, int32_t panel,
                                       int64_t blocks, int64_t block_bytes)
{
    return fs_plan(P, w, x, panel, blocks, block_bytes, 65536);
}

/* Q8 and Q4, one row: no panels are small, since their scales, which are needed first of all but lie
 * last, are fetched apart: while a tile is computed those of the next one, which are so many bytes
 * behind the beginning of the panels. Its own, which costs nothing, of the last tile and where panels are
 * so large that one more stream for each is worse than waiting at their beginnings. */
FS_INLINE int64_t fs_next_scales(const int P, const fs_matrix *w, const fs_acts *x, int32_t panel, int64_t scales)
{
    enum { LARGE = 131072 };
    const int64_t size = P * w->panel_bytes;
    return size >= LARGE || (x->ahead && panel + P >= x->ahead_end) ? scales : scales + size;
}

/* ---- matmul: a tile is P panels x R rows, both constants after inlining ---- */

FS_INLINE void fs_put(const fs_matrix *w, const fs_out *out, int32_t row, int32_t panel, v16 acc)
{
    float *p = out->data + row * out->stride + (int64_t)panel * FS_LANES;
    int32_t n = w->rows - panel * FS_LANES;
    const float *bias = out->bias ? out->bias + (int64_t)panel * FS_LANES : NULL;
    if (n >= FS_LANES) {
        if (out->add) acc = v_add(v_load(p), acc);
        v_store(p, bias ? v_add(acc, v_load(bias)) : acc);
    } else {
        if (out->add) acc = v_add(v_load_n(p, n), acc);
        v_store_n(p, bias ? v_add(acc, v_load_n(bias, n)) : acc, n);
    }
}

#define FS_EACH_PANEL FS_UNROLL for (int p = 0; p < P; p++)
#define FS_EACH_ROW FS_UNROLL for (int r = 0; r < R; r++)

#include "floats_body.h"

/* Scales of n blocks of a panel as levels, and what a level is worth; see fs_levels_of(). Those of blocks that
 * are not there are zero. low16: only their lower 16 bits are asked for. */
FS_INLINE void fs_some_levels(const int KIND, const int low16, const uint8_t *halfs, const int64_t n,
                              i16x *levels, v16 *unit)
{
    const int apart = (int)fs_scale_bytes(KIND), exact = fs_levels_of(KIND) != 127.5f;
    v16 levels_in_one;
    h16 most = h_least();
    FS_UNROLL for (int64_t i = 0; i < n; i++) most = h_larger(halfs + i * apart, most);
    v_units(h_floats(most), fs_levels_of(KIND), &levels_in_one, unit);
    FS_UNROLL for (int64_t i = 0; i < n; i++)
        levels[i] = low16 && exact ? v_nearest16(v_half(halfs + i * apart), levels_in_one)
                                   : v_nearest(v_mul(v_half(halfs + i * apart), levels_in_one));
    for (int64_t i = n; i < FS_SUPER; i++) levels[i] = int_set(0);
}

FS_INLINE void fs_levels(const int KIND, const int low16, const uint8_t *halfs, const int64_t n,
                         i16x *levels, v16 *unit)
{
    if (n == FS_SUPER) fs_some_levels(KIND, low16, halfs, FS_SUPER, levels, unit);
    else fs_some_levels(KIND, low16, halfs, n, levels, unit);
}

/* A block's sum times its level, for Q8. AVX2 multiplies by it earlier, in place of a 1. */
#ifndef FS_OWN_LEVELS
typedef i16x q8_level;
#define q8_level_of(level) (level)
#define q8_begin(total, shift) q8_start(shift)
#define q8_add(sum, w, x, level) q8_dot(sum, w, x)
#define q8_end(total, sum, shift, level) i_mla(total, q8_finish(sum, shift), level)
#endif

FS_INLINE void fs_tile_q8(const int P, const int R, const fs_matrix *w, const fs_acts *x,
                          const fs_out *out, int32_t row, int32_t panel)
{
    const uint8_t *weights = w->data + panel * w->panel_bytes;
    const int8_t *q = x->q + row * x->q_stride;
    const float *scale = x->scale + row * x->b_stride;
    const int32_t *shift = x->shift + row * x->b_stride;
    const int64_t step = w->panel_bytes, scales = (int64_t)w->blocks * 512;
    const fs_prefetching plan = fs_plan(P, w, x, panel, w->blocks, 512, 0);
    const int64_t next_scales = fs_next_scales(P, w, x, panel, scales);
    int64_t far = plan.far;
    v16 acc[MAX_P][MAX_R];
    FS_EACH_PANEL FS_EACH_ROW acc[p][r] = v_set(0.0f);
    for (int64_t first = 0; first < w->blocks; first += FS_SUPER) {
        const int64_t end = w->blocks - first < FS_SUPER ? w->blocks : first + FS_SUPER;
        i16x levels[MAX_P][FS_SUPER], total[MAX_P][MAX_R];
        v16 unit[MAX_P];
        FS_EACH_PANEL
        {
            fs_levels(FS_Q8, 0, weights + p * step + scales + first * 32, end - first, levels[p], &unit[p]);
        }
        FS_EACH_PANEL FS_EACH_ROW total[p][r] = int_set(0);
        for (int64_t b = first; b < end; b++) {
            if (b == plan.turn) far = plan.behind;
            if (R == 1 && b % 2 == 0) FS_EACH_PANEL v_prefetch(weights + p * step + next_scales + b * 32);
            q8_sum sum[MAX_P][MAX_R];
            q8_level level[MAX_P];
            FS_EACH_PANEL level[p] = q8_level_of(levels[p][b - first]);
            FS_EACH_ROW FS_EACH_PANEL
            sum[p][r] = q8_begin(total[p][r], shift[r * x->b_stride + b]);
            FS_UNROLL for (int g = 0; g < 8; g++)
            {
                w8 a[MAX_P];
                FS_EACH_PANEL
                {
                    a[p] = q8_load(weights + p * step + b * 512 + g * 64);
                    if (R == 1) v_prefetch(weights + p * step + b * 512 + g * 64 + far);
                    else if (row == 0) v_prefetch(weights + (p + P) * step + b * 512 + g * 64);
                }
                FS_EACH_ROW
                {
                    x4 c = x4_load(q + r * x->q_stride + b * FS_BLOCK + g * 4);
                    FS_EACH_PANEL sum[p][r] = q8_add(sum[p][r], a[p], c, level[p]);
                }
            }
            FS_EACH_PANEL FS_EACH_ROW
            total[p][r] = q8_end(total[p][r], sum[p][r], shift[r * x->b_stride + b], level[p]);
        }
        FS_EACH_PANEL FS_EACH_ROW
        {
            v16 factor = v_mul(unit[p], v_set(scale[r * x->b_stride + first / FS_SUPER]));
            acc[p][r] = v_fma(v_from_int(total[p][r]), factor, acc[p][r]);
        }
    }
    FS_EACH_PANEL FS_EACH_ROW fs_put(w, out, row + r, panel + p, acc[p][r]);
}

FS_INLINE void fs_tile_q4(const int P, const int R, const fs_matrix *w, const fs_acts *x,
                          const fs_out *out, int32_t row, int32_t panel)
{
    const uint8_t *weights = w->data + panel * w->panel_bytes;
    const int8_t *q = x->q + row * x->q_stride;
    const float *scale = x->scale + row * x->b_stride;
    const int32_t *shift = x->shift + row * x->b_stride;
    const int64_t step = w->panel_bytes, scales = (int64_t)w->blocks * 256;
    const fs_prefetching plan = fs_plan(P, w, x, panel, w->blocks, 256, 0);
    const int64_t next_scales = fs_next_scales(P, w, x, panel, scales);
    int64_t far = plan.far;
    v16 acc[MAX_P][MAX_R];
    FS_EACH_PANEL FS_EACH_ROW acc[p][r] = v_set(0.0f);
    for (int64_t first = 0; first < w->blocks; first += FS_SUPER) {
        const int64_t end = w->blocks - first < FS_SUPER ? w->blocks : first + FS_SUPER;
        i16x levels[MAX_P][FS_SUPER], total[MAX_P][MAX_R];
        v16 unit[MAX_P];
        FS_EACH_PANEL
        {
            fs_levels(FS_Q4, 0, weights + p * step + scales + first * 32, end - first, levels[p], &unit[p]);
        }
        FS_EACH_PANEL FS_EACH_ROW total[p][r] = int_set(0);
        for (int64_t b = first; b < end; b++) {
            if (b == plan.turn) far = plan.behind;
            if (R == 1 && b % 2 == 0) FS_EACH_PANEL v_prefetch(weights + p * step + next_scales + b * 32);
            q4_sum sum[MAX_P][MAX_R];
            FS_EACH_ROW FS_EACH_PANEL sum[p][r] = q4_start(shift[r * x->b_stride + b]);
            FS_UNROLL for (int g = 0; g < 4; g++)
            {
                w64 low[MAX_P], high[MAX_P];
                FS_EACH_PANEL
                {
                    w64 a = w_load(weights + p * step + b * 256 + g * 64);
                    if (R == 1) v_prefetch(weights + p * step + b * 256 + g * 64 + far);
                    else if (row == 0) v_prefetch(weights + (p + P) * step + b * 256 + g * 64);
                    low[p] = w_low(a);
                    high[p] = w_high(a);
                }
                FS_EACH_ROW
                {
                    const int8_t *c = q + r * x->q_stride + b * FS_BLOCK + g * 4;
                    x4 c0 = x4_load(c), c1 = x4_load(c + 16);
                    FS_EACH_PANEL sum[p][r] = q4_dot(sum[p][r], low[p], c0);
                    FS_EACH_PANEL sum[p][r] = q4_dot(sum[p][r], high[p], c1);
                }
            }
            FS_EACH_PANEL FS_EACH_ROW
            total[p][r] = i_mla16(total[p][r], q4_finish(sum[p][r], shift[r * x->b_stride + b]),
                                  levels[p][b - first]);
        }
        FS_EACH_PANEL FS_EACH_ROW
        {
            v16 factor = v_mul(unit[p], v_set(scale[r * x->b_stride + first / FS_SUPER]));
            acc[p][r] = v_fma(v_from_int(total[p][r]), factor, acc[p][r]);
        }
    }
    FS_EACH_PANEL FS_EACH_ROW fs_put(w, out, row + r, panel + p, acc[p][r]);
}

/* The next tile of the fewer than ROWS rows that are left: all of them, or six. So a step of a few
 * rows reads the weights once. No tile is larger than ROWS, which is a constant. */
#define FS_REST_OF(tile, PANELS, ROWS, k)                                \
    {                                                                    \
        enum { R = (k) < (ROWS) ? (k) : 1 };                             \
        tile(PANELS, R, w, x, out, row, panel);                          \
        row += R;                                                        \
    }
#define FS_REST(tile, PANELS, ROWS)                                      \
    switch (rows - row) {                                                \
    case 1: FS_REST_OF(tile, PANELS, ROWS, 1) break;                     \
    case 2: FS_REST_OF(tile, PANELS, ROWS, 2) break;                     \
    case 3: FS_REST_OF(tile, PANELS, ROWS, 3) break;                     \
    case 4: FS_REST_OF(tile, PANELS, ROWS, 4) break;                     \
    case 5: FS_REST_OF(tile, PANELS, ROWS, 5) break;                     \
    default: FS_REST_OF(tile, PANELS, ROWS, 6)                           \
    }

/* Cuts [panel, panel_end) x [0, rows) into tiles; a group of panels stays in cache for all rows. */
#define FS_MATMUL(name, tile, ONE, PANELS, ROWS, FEW)                                           \
    static void name(const fs_matrix *w, const fs_acts *x, const fs_out *out, int32_t rows,     \
                     int32_t panel, int32_t panel_end)                                          \
    {                                                                                           \
        if (rows == 1) {                                                                        \
            for (; panel + ONE <= panel_end; panel += ONE) tile(ONE, 1, w, x, out, 0, panel);   \
            for (; panel < panel_end; panel++) tile(1, 1, w, x, out, 0, panel);                 \
            return;                                                                             \
        }                                                                                       \
        for (; panel + PANELS <= panel_end; panel += PANELS) {                                  \
            int32_t row = 0;                                                                    \
            for (; row + ROWS <= rows; row += ROWS) tile(PANELS, ROWS, w, x, out, row, panel);  \
            while (row < rows) FS_REST(tile, PANELS, ROWS)                                      \
        }                                                                                       \
        for (; panel < panel_end; panel++) {                                                    \
            int32_t row = 0;                                                                    \
            for (; row + FEW <= rows; row += FEW) tile(1, FEW, w, x, out, row, panel);          \
            for (; row < rows; row++) tile(1, 1, w, x, out, row, panel);                        \
        }                                                                                       \
    }

FS_MATMUL(fs_matmul_q8, fs_tile_q8, Q8_ONE, Q8_PANELS, Q8_ROWS, Q8_FEW)
FS_MATMUL(fs_matmul_q4, fs_tile_q4, Q4_ONE, Q4_PANELS, Q4_ROWS, Q4_FEW)

#include "kernels_k.h"

#include "attention_body.h"
#include "packing_body.h"
#include "quantise_body.h"

#define FS_BODY_ENTRIES                                                                         \
    .matmul = {[FS_F32] = fs_matmul_f32, [FS_F16] = fs_matmul_f16, [FS_BF16] = fs_matmul_bf16,  \
               [FS_Q8] = fs_matmul_q8, [FS_Q4] = fs_matmul_q4, FS_K_ENTRIES},                   \
    .rmsnorm = fs_rmsnorm,                                                                      \
    .layernorm = fs_layernorm, .activate = fs_activate, .softcap = fs_softcap,                  \
    .softmax = fs_softmax, .quantise = fs_quantise, .quantise_wide = fs_quantise_wide, .rotate = fs_rotate, .attend = fs_attend_queries,              \
    .turn = fs_turn, .to_half = fs_to_half, .from_half = fs_from_half,                          \
    .quantise_q8_0 = fs_quantise_q8_0,                                                          \
    .quantise_q4_0 = fs_quantise_q4_0, .to_file = fs_to_file
