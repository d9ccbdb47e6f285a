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

static void fs_quantise(const float *x, int32_t width, int32_t offset, int8_t *q, float *scale,
                        int32_t *shift)
{
    for (int32_t i = 0; i < width; i += FS_BLOCK, q += FS_BLOCK, scale++, shift++) {
        int n = width - i;
        v16 a = n >= FS_LANES ? v_load(x + i) : v_load_n(x + i, n);
        v16 b = n >= FS_BLOCK ? v_load(x + i + FS_LANES)
                : n > FS_LANES ? v_load_n(x + i + FS_LANES, n - FS_LANES)
                               : v_set(0.0f);
        float amax = v_hmax(v_max(v_abs(a), v_abs(b)));
        /* below 1e-30 the inverse could overflow: such a block counts as zero */
        v16 inverse = v_set(amax > 1e-30f ? 127.0f / amax : 0.0f);
        *scale = amax > 1e-30f ? amax / 127.0f : 0.0f;
        int32_t first = v_store_i8(q, v_mul(a, inverse));
        int32_t second = v_store_i8(q + FS_LANES, v_mul(b, inverse));
        *shift = offset == FS_HALVES ? first + second * 65536 : -offset * (first + second);
    }
}

/* One row: what is prefetched stands so many bytes behind what is read now. Small panels: the same
 * place of the next ones, so that no stream ever begins cold. Large ones: a little ahead in each
 * panel's own stream. */
FS_INLINE int64_t fs_far(const int P, int64_t panel_bytes)
{
    return P * panel_bytes < 65536 ? P * panel_bytes : 2048;
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

#define FS_TILE_FLOAT(name, type, load)                                                         \
    FS_INLINE void name(const int P, const int R, const fs_matrix *w, const fs_acts *x,         \
                        const fs_out *out, int32_t row, int32_t panel)                          \
    {                                                                                           \
        const type *weights = (const type *)(w->data + panel * w->panel_bytes);                 \
        const int64_t step = w->panel_bytes / (int64_t)sizeof(type);                            \
        const int64_t far = fs_far(P, w->panel_bytes);                                          \
        const float *a = x->f + row * x->f_stride;                                              \
        v16 acc[MAX_P][MAX_R];                                                                  \
        FS_EACH_PANEL FS_EACH_ROW acc[p][r] = v_set(0.0f);                                      \
        for (int64_t k = 0; k < w->cols; k++) {                                                 \
            v16 b[MAX_P];                                                                       \
            FS_EACH_PANEL                                                                       \
            {                                                                                   \
                b[p] = load(weights + p * step + k * FS_LANES);                                 \
                v_prefetch((const char *)(weights + p * step + k * FS_LANES) +                  \
                           (R == 1 ? far : 16 * FS_LANES * (int)sizeof(type)));                 \
            }                                                                                   \
            FS_EACH_ROW                                                                         \
            {                                                                                   \
                v16 c = v_set(a[r * x->f_stride + k]);                                          \
                FS_EACH_PANEL acc[p][r] = v_fma(b[p], c, acc[p][r]);                            \
            }                                                                                   \
        }                                                                                       \
        FS_EACH_PANEL FS_EACH_ROW fs_put(w, out, row + r, panel + p, acc[p][r]);                \
    }

FS_TILE_FLOAT(fs_tile_f32, float, v_load)
FS_TILE_FLOAT(fs_tile_f16, uint16_t, v_half)
FS_TILE_FLOAT(fs_tile_bf16, uint16_t, v_brain)

FS_INLINE void fs_tile_q8(const int P, const int R, const fs_matrix *w, const fs_acts *x,
                          const fs_out *out, int32_t row, int32_t panel)
{
    const uint8_t *weights = w->data + panel * w->panel_bytes;
    const int8_t *q = x->q + row * x->q_stride;
    const float *scale = x->scale + row * x->b_stride;
    const int32_t *shift = x->shift + row * x->b_stride;
    const int64_t step = w->panel_bytes, scales = (int64_t)w->blocks * 512;
    const int64_t far = fs_far(P, step);
    v16 acc[MAX_P][MAX_R];
    FS_EACH_PANEL FS_EACH_ROW acc[p][r] = v_set(0.0f);
    for (int64_t b = 0; b < w->blocks; b++) {
        q8_sum sum[MAX_P][MAX_R];
        FS_EACH_ROW FS_EACH_PANEL sum[p][r] = q8_start(shift[r * x->b_stride + b]);
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
                FS_EACH_PANEL sum[p][r] = q8_dot(sum[p][r], a[p], c);
            }
        }
        FS_EACH_PANEL
        {
            v16 d = v_half(weights + p * step + scales + b * 32);
            FS_EACH_ROW
            {
                v16 s = v_from_int(q8_finish(sum[p][r], shift[r * x->b_stride + b]));
                acc[p][r] = v_fma(s, v_mul(d, v_set(scale[r * x->b_stride + b])), acc[p][r]);
            }
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
    const int64_t far = fs_far(P, step);
    v16 acc[MAX_P][MAX_R];
    FS_EACH_PANEL FS_EACH_ROW acc[p][r] = v_set(0.0f);
    for (int64_t b = 0; b < w->blocks; b++) {
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
        FS_EACH_PANEL
        {
            v16 d = v_half(weights + p * step + scales + b * 32);
            FS_EACH_ROW
            {
                v16 s = v_from_int(q4_finish(sum[p][r], shift[r * x->b_stride + b]));
                acc[p][r] = v_fma(s, v_mul(d, v_set(scale[r * x->b_stride + b])), acc[p][r]);
            }
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

FS_MATMUL(fs_matmul_f32, fs_tile_f32, F_ONE, F_PANELS, F_ROWS, F_FEW)
FS_MATMUL(fs_matmul_f16, fs_tile_f16, F_ONE, F_PANELS, F_ROWS, F_FEW)
FS_MATMUL(fs_matmul_bf16, fs_tile_bf16, F_ONE, F_PANELS, F_ROWS, F_FEW)
FS_MATMUL(fs_matmul_q8, fs_tile_q8, Q8_ONE, Q8_PANELS, Q8_ROWS, Q8_FEW)
FS_MATMUL(fs_matmul_q4, fs_tile_q4, Q4_ONE, Q4_PANELS, Q4_ROWS, Q4_FEW)

#include "kernels_k.h"

/* ---- attention: lane = position for the scores, lane = element for the values ----
 *
 * Pages one after the other, all queries with each. A score is one chain over the elements, an output
 * one chain over the positions: neither depends on the queries beside it, nor on whether a page was
 * turned into floats once for all of them (many queries) or is where it is read (few). */

/* 16 numbers of a cache from `index` on, as the floats that they stand for */
FS_INLINE v16 v_cached(const int KIND, const char *p, int64_t index, v16 scale)
{
    if (KIND == FS_KV_F32) return v_load((const float *)p + index);
    if (KIND == FS_KV_F16) return v_half((const uint16_t *)p + index);
    return v_mul(v_from_i8((const int8_t *)p + index), scale);
}

/* scores of N queries with B blocks of a page's keys */
FS_INLINE void fs_score_tile(const int KIND, const int N, const int B, const fs_attend *a,
                             const char *keys, int32_t query, int32_t block, float *scores)
{
    const int64_t dim = a->head_dim, groups = (dim + FS_BLOCK - 1) / FS_BLOCK;
    const int64_t unit = KIND == FS_KV_Q8 ? FS_BLOCK : dim;
    const float *scales = (const float *)(keys + FS_PAGE * dim) + block * groups * FS_LANES;
    const float *q = a->q + query * dim;
    const int64_t index = block * dim * FS_LANES;
    v16 acc[A_MANY][A_ALONE], s[A_ALONE];
    FS_UNROLL for (int i = 0; i < N; i++)
        FS_UNROLL for (int b = 0; b < B; b++) acc[i][b] = v_set(0.0f);
    for (int64_t first = 0; first < dim; first += unit, scales += FS_LANES) {
        const int64_t end = first + unit < dim ? first + unit : dim;
        FS_UNROLL for (int b = 0; b < B; b++)
            s[b] = KIND == FS_KV_Q8 ? v_load(scales + b * groups * FS_LANES) : v_set(1.0f);
        for (int64_t d = first; d < end; d++) {
            v16 k[A_ALONE];
            FS_UNROLL for (int b = 0; b < B; b++)
                k[b] = v_cached(KIND, keys, index + (b * dim + d) * FS_LANES, s[b]);
            FS_UNROLL for (int i = 0; i < N; i++) {
                v16 c = v_set(q[i * dim + d]);
                FS_UNROLL for (int b = 0; b < B; b++) acc[i][b] = v_fma(k[b], c, acc[i][b]);
            }
        }
    }
    v16 scale = v_set(a->scale);
    scores += query * a->score_stride + block * FS_LANES;
    FS_UNROLL for (int i = 0; i < N; i++)
        FS_UNROLL for (int b = 0; b < B; b++)
            v_store(scores + i * a->score_stride + b * FS_LANES, v_mul(acc[i][b], scale));
}

/* of N queries: those blocks of a page of which the last of them sees something */
FS_INLINE void fs_score_page(const int KIND, const int N, const fs_attend *a, const char *keys,
                             int32_t query, int64_t start)
{
    const int64_t seen = a->length[query + N - 1] - start;
    const int32_t blocks = (int32_t)((seen < FS_PAGE ? seen + FS_LANES - 1 : FS_PAGE) / FS_LANES);
    const int B = N == 1 ? A_ALONE : A_BLOCKS;
    int32_t block = 0;
    for (; block + B <= blocks; block += B)
        fs_score_tile(KIND, N, B, a, keys, query, block, a->scores + start);
    for (; block < blocks; block++)
        fs_score_tile(KIND, N, 1, a, keys, query, block, a->scores + start);
}

/* Lanes of a, a vector of scores from t on, that lie in [begin, length); the others of b. */
FS_INLINE v16 v_within(v16 a, v16 b, int32_t t, int32_t begin, int32_t length)
{
    if (t < begin) a = v_keep_n(b, a, begin - t);
    return length - t < FS_LANES ? v_keep_n(a, b, length - t) : a;
}

/* scores [begin, length) -> e^(score - max), in place, those of begin's page before it -> 0; returns
 * 1 / their sum. softcap 0: none. */
FS_INLINE float fs_softmax_within(float *scores, int32_t begin, int32_t length, float softcap)
{
    const v16 low = v_set(-3.4e38f), zero = v_set(0.0f);
    const int32_t first = begin / FS_LANES * FS_LANES;
    v16 most = low, sum = zero;
    for (int32_t t = begin / FS_PAGE * FS_PAGE; t < first; t += FS_LANES) v_store(scores + t, zero);
    for (int32_t t = first; t < length; t += FS_LANES) {
        v16 s = v_load(scores + t);
        if (softcap != 0.0f) {
            s = v_softcap(s, v_set(softcap));
            v_store(scores + t, s);
        }
        most = v_max(most, v_within(s, low, t, begin, length));
    }
    most = v_set(v_hmax(most));
    for (int32_t t = first; t < length; t += FS_LANES) {
        v16 e = v_exp(v_sub(v_load(scores + t), most));
        e = v_within(e, zero, t, begin, length);
        v_store(scores + t, e);
        sum = v_add(sum, e);
    }
    return 1.0f / v_sum(sum);
}

static float fs_softmax(float *x, int32_t width) { return fs_softmax_within(x, 0, width, 0.0f); }

/* adds a page's values to C vectors of elements of N queries */
FS_INLINE void fs_value_tile(const int KIND, const int N, const int C, const fs_attend *a,
                             const char *values, int32_t query, int32_t element, int64_t start)
{
    const int64_t width = a->value_width, groups = (a->head_dim + FS_BLOCK - 1) / FS_BLOCK;
    const float *scales = (const float *)(values + FS_PAGE * width);
    const float *p = a->scores + query * a->score_stride + start;
    float *out = a->out + query * width + element;
    v16 acc[A_MANY][A_ALONE];
#define FS_VALUE(t, c)                                                                          \
    v_cached(KIND, values, (t) * width + element + (c) * FS_LANES,                              \
             KIND == FS_KV_Q8 ? v_set(scales[(t) * groups + (element / FS_LANES + (c)) / 2])    \
                              : v_set(1.0f))
    FS_UNROLL for (int i = 0; i < N; i++)
        FS_UNROLL for (int c = 0; c < C; c++) acc[i][c] = v_load(out + i * width + c * FS_LANES);
    int64_t common = a->length[query] - start, t = 0;
    if (common > FS_PAGE) common = FS_PAGE;
    for (; t < common; t++) {
        v16 v[A_ALONE];
        FS_UNROLL for (int c = 0; c < C; c++) v[c] = FS_VALUE(t, c);
        FS_UNROLL for (int i = 0; i < N; i++) {
            v16 s = v_set(p[i * a->score_stride + t]);
            FS_UNROLL for (int c = 0; c < C; c++) acc[i][c] = v_fma(s, v[c], acc[i][c]);
        }
    }
    FS_UNROLL for (int i = 0; i < N; i++) {
        int64_t end = a->length[query + i] - start;
        if (end > FS_PAGE) end = FS_PAGE;
        for (t = common; t < end; t++) {
            v16 s = v_set(p[i * a->score_stride + t]);
            FS_UNROLL for (int c = 0; c < C; c++) acc[i][c] = v_fma(s, FS_VALUE(t, c), acc[i][c]);
        }
        FS_UNROLL for (int c = 0; c < C; c++) v_store(out + i * width + c * FS_LANES, acc[i][c]);
    }
#undef FS_VALUE
}

FS_INLINE void fs_value_page(const int KIND, const int N, const fs_attend *a, const char *values,
                             int32_t query, int64_t start)
{
    const int C = N == 1 ? A_ALONE : A_WIDE;
    int32_t element = 0, width = a->value_width;
    for (; element + C * FS_LANES <= width; element += C * FS_LANES)
        fs_value_tile(KIND, N, C, a, values, query, element, start);
    if (C > 3 && element + 3 * FS_LANES == width) { /* heads of 48 */
        fs_value_tile(KIND, N, C > 3 ? 3 : 1, a, values, query, element, start);
        return;
    }
    for (; element < width; element += FS_LANES)
        fs_value_tile(KIND, N, 1, a, values, query, element, start);
}

/* a page's keys or values as floats, into the scratch */
FS_INLINE void fs_unpack_keys(const int KIND, const fs_attend *a, const char *keys, int64_t seen)
{
    const int64_t dim = a->head_dim, groups = (dim + FS_BLOCK - 1) / FS_BLOCK;
    const float *scales = (const float *)(keys + FS_PAGE * dim);
    for (int64_t b = 0; b * FS_LANES < seen; b++)
        for (int64_t d = 0; d < dim; d++) {
            const float *s = scales + (b * groups + d / FS_BLOCK) * FS_LANES;
            v16 scale = KIND == FS_KV_Q8 ? v_load(s) : v_set(1.0f);
            int64_t index = (b * dim + d) * FS_LANES;
            v_store(a->page + index, v_cached(KIND, keys, index, scale));
        }
}

FS_INLINE void fs_unpack_values(const int KIND, const fs_attend *a, const char *values, int64_t seen)
{
    const int64_t width = a->value_width, groups = (a->head_dim + FS_BLOCK - 1) / FS_BLOCK;
    const float *scales = (const float *)(values + FS_PAGE * width);
    for (int64_t t = 0; t < seen; t++)
        for (int64_t i = 0; i < width; i += FS_LANES) {
            float s = KIND == FS_KV_Q8 ? scales[t * groups + i / FS_BLOCK] : 1.0f;
            v_store(a->page + t * width + i, v_cached(KIND, values, t * width + i, v_set(s)));
        }
}

#define FS_QUERY_TILES(page, KIND, data)                                                        \
    for (; i + A_MANY <= end; i += A_MANY) page(KIND, A_MANY, a, data, i, start);               \
    for (; i + A_FEW <= end; i += A_FEW) page(KIND, A_FEW, a, data, i, start);                  \
    for (; i < end; i++) page(KIND, 1, a, data, i, start)

/* how many queries see something before `position`; the first of all sees the least */
FS_INLINE int32_t fs_queries_before(const fs_attend *a, int64_t position)
{
    int32_t n = a->queries;
    while (n && a->begin[n - 1] >= position) n--;
    return n;
}

/* BARE: pages are read where they are */
FS_INLINE void fs_attend_kind(const int KIND, const int BARE, const fs_attend *a)
{
    const int64_t last = a->length[a->queries - 1], width = a->value_width;
    float inverse[FS_QUERIES];
    const int64_t begin = a->begin[0] / FS_PAGE * FS_PAGE;
    int32_t i = 0; /* queries [i, end) see something of the page */
    for (int64_t start = begin; start < last; start += FS_PAGE) {
        const char *keys = a->pages[start / FS_PAGE] + a->keys;
        const int32_t first = i, end = fs_queries_before(a, start + FS_PAGE);
        if (!BARE) fs_unpack_keys(KIND, a, keys, last - start < FS_PAGE ? last - start : FS_PAGE);
        if (BARE) {
            FS_QUERY_TILES(fs_score_page, KIND, keys);
        } else {
            FS_QUERY_TILES(fs_score_page, FS_KV_F32, (const char *)a->page);
        }
        for (i = first; i < end && a->length[i] <= start + FS_PAGE;) i++;
    }
    for (i = 0; i < a->queries; i++) {
        inverse[i] = fs_softmax_within(a->scores + i * a->score_stride, a->begin[i], a->length[i],
                                       a->softcap);
        for (int64_t e = 0; e < width; e += FS_LANES) v_store(a->out + i * width + e, v_set(0.0f));
    }
    i = 0;
    for (int64_t start = begin; start < last; start += FS_PAGE) {
        const char *values = a->pages[start / FS_PAGE] + a->values;
        const int32_t first = i, end = fs_queries_before(a, start + FS_PAGE);
        if (!BARE) fs_unpack_values(KIND, a, values, last - start < FS_PAGE ? last - start : FS_PAGE);
        if (BARE) {
            FS_QUERY_TILES(fs_value_page, KIND, values);
        } else {
            FS_QUERY_TILES(fs_value_page, FS_KV_F32, (const char *)a->page);
        }
        for (i = first; i < end && a->length[i] <= start + FS_PAGE;) i++;
    }
    for (i = 0; i < a->queries; i++)
        for (int64_t e = 0; e < width; e += FS_LANES) {
            float *out = a->out + i * width + e;
            v_store(out, v_mul(v_load(out), v_set(inverse[i])));
        }
}

static void fs_attend_queries(const fs_attend *a)
{
    const int many = a->queries >= 2 * A_MANY;
    switch (a->kind) {
    case FS_KV_F32: fs_attend_kind(FS_KV_F32, 1, a); break;
    case FS_KV_F16:
        if (many)
            fs_attend_kind(FS_KV_F16, 0, a);
        else
            fs_attend_kind(FS_KV_F16, 1, a);
        break;
    default:
        if (many)
            fs_attend_kind(FS_KV_Q8, 0, a);
        else
            fs_attend_kind(FS_KV_Q8, 1, a);
    }
}

static void fs_to_half(const float *x, int32_t count, uint16_t *y)
{
    const v16 low = v_set(-65504.0f), high = v_set(65504.0f);
    int32_t i = 0;
    for (; i + FS_LANES <= count; i += FS_LANES)
        v_store_half(y + i, v_min(v_max(v_load(x + i), low), high));
    if (i < count) {
        uint16_t halfs[FS_LANES];
        v_store_half(halfs, v_min(v_max(v_load_n(x + i, count - i), low), high));
        memcpy(y + i, halfs, (size_t)(count - i) * sizeof *y);
    }
}

/* ---- reading and quantising the weights of a file ---- */

static void fs_from_half(const uint16_t *halfs, int64_t count, float *y)
{
    int64_t i = 0;
    for (; i + FS_LANES <= count; i += FS_LANES) v_store(y + i, v_half(halfs + i));
    for (; i < count; i++) y[i] = fs_half_to_float(halfs[i]);
}

/* words [begin, words) of 16 rows, one by one */
FS_INLINE void fs_turn_rest(const void *rows, int64_t stride, int32_t begin, int32_t words, void *y)
{
    for (int32_t i = begin; i < words; i++)
        for (int lane = 0; lane < FS_LANES; lane++)
            memcpy((char *)y + (i * (int64_t)FS_LANES + lane) * 4,
                   (const char *)rows + lane * stride + i * 4LL, 4);
}

static void fs_turn(const void *rows, int64_t stride, int32_t words, void *y)
{
    int32_t done = turn_eights(rows, stride, words, y);
    fs_turn_rest(rows, stride, done, words, y);
}

/* d and 1 / d of 16 rows; 1 / d is 0 where d is */
FS_INLINE void fs_block_scales(const float *d, float *inverse, uint16_t *scales)
{
    v_store(inverse, v_div(v_set(1.0f), v_load(d)));
    for (int lane = 0; lane < FS_LANES; lane++) {
        inverse[lane] = d[lane] != 0.0f ? inverse[lane] : 0.0f;
        scales[lane] = fs_float_to_half(d[lane]);
    }
}

/* d = amax / 127, q = roundf(x / d): half away from zero; the bounds hold but for values that are
 * not finite */
static void fs_quantise_q8_0(const float *x, uint8_t *groups, uint16_t *scales)
{
    _Alignas(64) float d[FS_LANES], inverse[FS_LANES];
    v16 amax = v_abs(v_load(x));
    for (int c = 1; c < FS_BLOCK; c++) amax = v_max(amax, v_abs(v_load(x + c * FS_LANES)));
    v_store(d, v_div(amax, v_set(127.0f)));
    fs_block_scales(d, inverse, scales);
    const v16 factor = v_load(inverse), most = v_set(127.0f), least = v_set(-127.0f);
    for (int g = 0; g < FS_BLOCK / 4; g++) {
        i16x word;
        FS_UNROLL for (int j = 0; j < 4; j++, x += FS_LANES) {
            v16 value = v_max(v_min(v_mul(v_load(x), factor), most), least);
            word = j ? i_join(word, v_round(value), 8 * j) : i_low(v_round(value));
        }
        i_store(groups + g * 64, word);
    }
    for (int i = 0; i < 512; i++) groups[i] ^= 128; /* q + 128 */
}

/* the element of a row's block that is largest in magnitude, the first of equals; `high` and `low`
 * are the block's largest and smallest */
FS_INLINE float fs_largest(const float *x, int lane, float high, float low)
{
    if (high != -low) return high > -low ? high : low;
    for (int c = 0; c < FS_BLOCK; c++)
        if (x[c * FS_LANES + lane] != 0.0f && fabsf(x[c * FS_LANES + lane]) == high)
            return x[c * FS_LANES + lane];
    return 0.0f;
}

/* d = (the element of largest magnitude) / -8, q = min(15, trunc(x / d + 8.5)) */
static void fs_quantise_q4_0(const float *x, uint8_t *groups, uint16_t *scales)
{
    _Alignas(64) float d[FS_LANES], inverse[FS_LANES], high[FS_LANES], low[FS_LANES];
    v16 most = v_load(x), least = most;
    for (int c = 1; c < FS_BLOCK; c++) {
        most = v_max(most, v_load(x + c * FS_LANES));
        least = v_min(least, v_load(x + c * FS_LANES));
    }
    v_store(high, most);
    v_store(low, least);
    for (int lane = 0; lane < FS_LANES; lane++)
        d[lane] = fs_largest(x, lane, high[lane], low[lane]) / -8.0f;
    fs_block_scales(d, inverse, scales);
    const v16 factor = v_load(inverse), half = v_set(8.5f), top = v_set(15.0f), zero = v_set(0.0f);
    for (int g = 0; g < FS_BLOCK / 8; g++) {
        i16x word;
        FS_UNROLL for (int j = 0; j < 4; j++, x += FS_LANES) {
            v16 a = v_add(v_mul(v_load(x), factor), half);
            v16 b = v_add(v_mul(v_load(x + 16 * FS_LANES), factor), half);
            a = v_max(v_min(a, top), zero); /* below zero: only what is not finite */
            b = v_max(v_min(b, top), zero);
            word = j ? i_join(word, v_trunc(a), 8 * j) : v_trunc(a);
            word = i_join(word, v_trunc(b), 8 * j + 4);
        }
        i_store(groups + g * 64, word);
    }
}

#define FS_BODY_ENTRIES                                                                         \
    .matmul = {[FS_F32] = fs_matmul_f32, [FS_F16] = fs_matmul_f16, [FS_BF16] = fs_matmul_bf16,  \
               [FS_Q8] = fs_matmul_q8, [FS_Q4] = fs_matmul_q4, FS_K_ENTRIES},                   \
    .rmsnorm = fs_rmsnorm,                                                                      \
    .layernorm = fs_layernorm, .activate = fs_activate, .softcap = fs_softcap,                  \
    .softmax = fs_softmax, .quantise = fs_quantise, .attend = fs_attend_queries,              \
    .turn = fs_turn, .to_half = fs_to_half, .from_half = fs_from_half,                          \
    .quantise_q8_0 = fs_quantise_q8_0,                                                          \
    .quantise_q4_0 = fs_quantise_q4_0
