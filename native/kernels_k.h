/* Matmuls of weights of 2 to 6 bits, with minima of blocks or without: Q4_1, Q5_0, Q5_1, Q2_K to Q6_K; and
 * of those that are looked up: IQ4_NL, IQ4_XS, MXFP4. Part of kernels_body.h; see kernels.h for how they lie.
 *
 * A weight is d * s * u + m (or d * s * (u - middle)), with u not negative and s a whole number: the file's,
 * of 8 bits, or a level. A minimum m is a half, or -dmin * n with n a whole number of 8 bits. Of 256 columns come
 *   total = sum of s * u * q, without the middle: below 2^31
 *   rest = -dmin * sum of n * (sum of q); with halfs one fma(m, sum of q, rest) after the other
 *   acc = fma(total, d * xs, acc); with minima fma(fma(total, d, rest), xs, acc)
 * with q the activations and xs their scale. */

/* the four columns of group g (0 to 3: in the low nibbles) of 16 rows */
FS_INLINE w64 fs_numbers(const int KIND, const uint8_t *block, w64 nibbles, const int g)
{
    const int bits = fs_high_bits(KIND);
    if (fs_low_bits(KIND) == 2) {
        w64 two = w_bits(w_load(block + g / 4 * 64), -(g % 4 * 2), 3);
        return bits ? w_or(two, w_bits(w_load(block + 128), 2 - g, 4)) : two;
    }
    w64 u = g < 4 ? w_low(nibbles) : w_high(nibbles);
    if (bits == 1) u = w_or(u, w_bits(w_load(block + 256), 4 - g, 0x10));
    if (bits == 2) u = w_or(u, w_bits(w_load(block + 256 + g / 4 * 64), 4 - g % 4 * 2, 0x30));
    return u;
}

/* A sum of products times its scale. AVX2 adds up fewer groups of four
 * columns at once, in 16 bits, and multiplies otherwise. */
#ifndef FS_OWN_GROUPS
#define k_groups(KIND) (fs_has_halves(KIND) ? 4 : 8)
typedef i16x k_sum;
typedef i16x k_level;
#define k_start() int_set(0)
#define k_dot(sum, w, x) u_dot(sum, w, x)
#define k_level_of(KIND, a, second) pairs_of(a, second)
/* of a level, of which the lower 16 bits are enough where k_low16 */
#define k_low16(KIND) 0
#define k_level_one(KIND, level) (level)
/* a block's sum without the middle begins with fs_offset()'s shift; AVX2 adds it to the total */
#define k_begin(shift) int_set(shift)
#define k_less(total, level, shift) (total)
#define k_end(KIND, total, sum, level) i_mla(total, sum, level)
#endif

FS_INLINE void fs_tile_k(const int KIND, const int P, const int R, const fs_matrix *w,
                             const fs_acts *x, const fs_out *out, int32_t row, int32_t panel)
{
    const uint8_t *weights = w->data + panel * w->panel_bytes;
    const int8_t *q = x->q + row * x->q_stride;
    const float *scale = x->scale + row * x->b_stride;
    const int32_t *shift = x->shift + row * x->b_stride;
    const int levels = !fs_is_super(KIND), middle = fs_middle(KIND);
    const int halves = fs_has_halves(KIND), minima = fs_has_minima(KIND), G = k_groups(KIND);
    const int64_t step = w->panel_bytes, size = fs_block_bytes(KIND);
    const int64_t bytes = fs_scale_bytes(KIND) * (levels ? FS_SUPER : 1);
    const uint8_t *super = weights + w->blocks * size; /* scales of FS_SUPER blocks */
    const int64_t many = (halves + 1) * FS_SUPER * FS_LANES; /* bytes of scales, then as many of minima */
    const fs_prefetching plan = fs_plan_ahead(P, w, x, panel, w->blocks, size);
    int64_t far = plan.far;
    v16 acc[MAX_P][MAX_R];
    FS_EACH_PANEL FS_EACH_ROW acc[p][r] = v_set(0.0f);
    for (int64_t first = 0; first < w->blocks; first += FS_SUPER, super += bytes) {
        const int64_t end = levels && w->blocks - first < FS_SUPER ? w->blocks : first + FS_SUPER;
        i16x total[MAX_P][MAX_R], rest[MAX_P][MAX_R], found[MAX_P][FS_SUPER];
        v16 unit[MAX_P], low[MAX_P][MAX_R];
        FS_EACH_PANEL FS_EACH_ROW
        {
            total[p][r] = rest[p][r] = int_set(0);
            low[p][r] = v_set(0.0f);
        }
        FS_EACH_PANEL
        {
            if (levels) fs_levels(KIND, k_low16(KIND), super + p * step, end - first, found[p], &unit[p]);
            else unit[p] = v_half(super + p * step);
        }
        int64_t b = first;
        const int32_t *sums = shift + first / (2 - halves);
        const uint8_t *pair = super + (levels ? 0 : minima ? 64 : 32);
        for (int i = 0; b < end; i += 2, pair += levels ? 2 * bytes / FS_SUPER : 2 * FS_LANES, sums++) {
            k_level level[MAX_P][2];
            FS_EACH_PANEL
            {
                if (levels) {
                    level[p][0] = k_level_one(KIND, found[p][i]);
                    level[p][1] = k_level_one(KIND, found[p][i + 1]);
                    continue;
                }
                const pairs s = pairs_load(pair + p * step);
                const pairs n = minima ? pairs_load(pair + p * step + many) : s;
                level[p][0] = k_level_of(KIND, s, 0);
                level[p][1] = k_level_of(KIND, s, 1);
                if (minima || middle)
                    FS_EACH_ROW rest[p][r] = pairs_dot(rest[p][r], n, sums[r * x->b_stride]);
            }
            /* of one block, or of two */
            k_sum sum[MAX_P][MAX_R];
            FS_EACH_PANEL FS_EACH_ROW sum[p][r] = k_start();
            FS_UNROLL for (int c = 0; c < 16 >> halves; c++)
            {
                if (levels && c == 8 && b == end) break;
                if (levels && minima && c % 8 == 0)
                    FS_EACH_PANEL
                    {
                        const v16 m = v_half(pair + c / 8 * 64 + p * step + 32);
                        FS_EACH_ROW low[p][r] = v_fma(m, v_set(fs_float(shift[r * x->b_stride + b])), low[p][r]);
                    }
                else if (levels && c % 8 == 0)
                    FS_EACH_PANEL FS_EACH_ROW
                    {
                        const int32_t less = shift[r * x->b_stride + b];
                        total[p][r] = k_less(total[p][r], level[p][c / 8], less);
                        sum[p][r] = k_begin(less);
                    }
                /* where all of a block is one sum, both halves of a byte after each other */
                const int j = c % 8, g = G == 8 ? j / 2 + j % 2 * 4 : j;
                if (j == 0 && b == plan.turn) far = plan.behind;
                w64 u[MAX_P];
                FS_EACH_PANEL
                {
                    const uint8_t *block = weights + p * step;
                    const w64 nibbles = w_load(block + (fs_low_bits(KIND) == 4 ? g % 4 * 64 : 0));
                    if ((R == 1 || row == 0) && j * 64 < size) v_prefetch(block + far + j * 64);
                    u[p] = fs_numbers(KIND, block, nibbles, g);
                }
                FS_EACH_ROW
                {
                    const x4 four = x4_load(q + r * x->q_stride + b * FS_BLOCK + g * 4);
                    FS_EACH_PANEL sum[p][r] = k_dot(sum[p][r], u[p], four);
                }
                if (c % G == G - 1) {
                    const int half = halves ? j / 4 : c / 8;
                    FS_EACH_PANEL FS_EACH_ROW
                    {
                        total[p][r] = k_end(KIND, total[p][r], sum[p][r], level[p][half]);
                        sum[p][r] = k_start();
                    }
                }
                if (j == 7) b++, weights += size;
            }
        }
        FS_EACH_PANEL FS_EACH_ROW
        {
            const v16 xs = v_set(scale[r * x->b_stride + first / FS_SUPER]);
            if (minima) {
                if (!levels) {
                    const v16 m = v_sub(v_set(0.0f), v_half(super + p * step + 32));
                    low[p][r] = v_mul(v_from_int(rest[p][r]), m);
                }
                acc[p][r] = v_fma(v_fma(v_from_int(total[p][r]), unit[p], low[p][r]), xs, acc[p][r]);
            } else {
                const i16x sum = levels ? total[p][r] : i_mla(total[p][r], rest[p][r], int_set(-middle));
                acc[p][r] = v_fma(v_from_int(sum), v_mul(unit[p], xs), acc[p][r]);
            }
        }
    }
    FS_EACH_PANEL FS_EACH_ROW fs_put(w, out, row + r, panel + p, acc[p][r]);
}

/* Nibbles that are looked up: then as Q8. */
FS_INLINE void fs_tile_table(const int KIND, const int P, const int R, const fs_matrix *w,
                          const fs_acts *x, const fs_out *out, int32_t row, int32_t panel)
{
    const uint8_t *weights = w->data + panel * w->panel_bytes;
    const int8_t *q = x->q + row * x->q_stride;
    const float *scale = x->scale + row * x->b_stride;
    const int32_t *shift = x->shift + row * x->b_stride;
    const int levels = !fs_is_super(KIND);
    const int64_t step = w->panel_bytes, bytes = fs_scale_bytes(KIND) * (levels ? FS_SUPER : 1);
    const uint8_t *super = weights + (int64_t)w->blocks * 256, *table = fs_table(KIND);
    const fs_prefetching plan = fs_plan_ahead(P, w, x, panel, w->blocks, 256);
    int64_t far = plan.far;
    v16 acc[MAX_P][MAX_R];
    FS_EACH_PANEL FS_EACH_ROW acc[p][r] = v_set(0.0f);
    for (int64_t first = 0; first < w->blocks; first += FS_SUPER, super += bytes) {
        const int64_t end = levels && w->blocks - first < FS_SUPER ? w->blocks : first + FS_SUPER;
        i16x total[MAX_P][MAX_R], found[MAX_P][FS_SUPER];
        v16 unit[MAX_P];
        FS_EACH_PANEL
        {
            if (levels) fs_levels(KIND, 0, super + p * step, end - first, found[p], &unit[p]);
            else unit[p] = v_half(super + p * step);
        }
        FS_EACH_PANEL FS_EACH_ROW total[p][r] = int_set(0);
        for (int64_t b = first; b < end; b++, weights += 256) {
            if (b == plan.turn) far = plan.behind;
            q8_sum sum[MAX_P][MAX_R];
            q8_level level[MAX_P];
            FS_EACH_PANEL
            {
                const uint8_t *at = super + p * step + 32 + (b - first) / 2 * (2 * FS_LANES);
                level[p] = q8_level_of(levels ? found[p][b - first] : pairs_of(pairs_load(at), b % 2));
            }
            FS_EACH_ROW FS_EACH_PANEL
            sum[p][r] = q8_begin(total[p][r], shift[r * x->b_stride + b]);
            FS_UNROLL for (int g = 0; g < 4; g++)
            {
                w8 low[MAX_P], high[MAX_P];
                FS_EACH_PANEL
                {
                    w64 nibbles = w_load(weights + p * step + g * 64);
                    if (R == 1 || row == 0) v_prefetch(weights + p * step + g * 64 + far);
                    low[p] = q8_table(table, w_low(nibbles));
                    high[p] = q8_table(table, w_high(nibbles));
                }
                FS_EACH_ROW
                {
                    const int8_t *c = q + r * x->q_stride + b * FS_BLOCK + g * 4;
                    x4 c0 = x4_load(c), c1 = x4_load(c + 16);
                    FS_EACH_PANEL sum[p][r] = q8_add(sum[p][r], low[p], c0, level[p]);
                    FS_EACH_PANEL sum[p][r] = q8_add(sum[p][r], high[p], c1, level[p]);
                }
            }
            FS_EACH_PANEL FS_EACH_ROW
            total[p][r] = q8_end(total[p][r], sum[p][r], shift[r * x->b_stride + b], level[p]);
        }
        FS_EACH_PANEL FS_EACH_ROW
        {
            const v16 factor = v_mul(unit[p], v_set(scale[r * x->b_stride + first / FS_SUPER]));
            acc[p][r] = v_fma(v_from_int(total[p][r]), factor, acc[p][r]);
        }
    }
    FS_EACH_PANEL FS_EACH_ROW fs_put(w, out, row + r, panel + p, acc[p][r]);
}

#define FS_MATMUL_K(name, tile, any, KIND, ROWS)                                                       \
    FS_INLINE void tile(const int P, const int R, const fs_matrix *w, const fs_acts *x,           \
                        const fs_out *out, int32_t row, int32_t panel)                            \
    {                                                                                             \
        any(KIND, P, R, w, x, out, row, panel);                                                   \
    }                                                                                             \
    FS_MATMUL(name, tile, K_ONE, K_PANELS, ROWS, K_FEW)

FS_MATMUL_K(fs_matmul_q4_1, fs_tile_q4_1, fs_tile_k, FS_Q4_1, K_ROWS)
FS_MATMUL_K(fs_matmul_q5_0, fs_tile_q5_0, fs_tile_k, FS_Q5_0, K_ROWS)
FS_MATMUL_K(fs_matmul_q5_1, fs_tile_q5_1, fs_tile_k, FS_Q5_1, K_ROWS)
FS_MATMUL_K(fs_matmul_q4_k, fs_tile_q4_k, fs_tile_k, FS_Q4_K, K_ROWS)
FS_MATMUL_K(fs_matmul_q5_k, fs_tile_q5_k, fs_tile_k, FS_Q5_K, K_ROWS)
FS_MATMUL_K(fs_matmul_q6_k, fs_tile_q6_k, fs_tile_k, FS_Q6_K, K6_ROWS)
FS_MATMUL_K(fs_matmul_q2_k, fs_tile_q2_k, fs_tile_k, FS_Q2_K, K6_ROWS)
FS_MATMUL_K(fs_matmul_q3_k, fs_tile_q3_k, fs_tile_k, FS_Q3_K, K6_ROWS)
FS_MATMUL_K(fs_matmul_iq4_nl, fs_tile_iq4_nl, fs_tile_table, FS_IQ4_NL, K_ROWS)
FS_MATMUL_K(fs_matmul_iq4_xs, fs_tile_iq4_xs, fs_tile_table, FS_IQ4_XS, K_ROWS)
FS_MATMUL_K(fs_matmul_mxfp4, fs_tile_mxfp4, fs_tile_table, FS_MXFP4, K_ROWS)

#define FS_K_ENTRIES                                                                         \
    [FS_Q4_1] = fs_matmul_q4_1, [FS_Q5_0] = fs_matmul_q5_0, [FS_Q5_1] = fs_matmul_q5_1,      \
    [FS_Q4_K] = fs_matmul_q4_k, [FS_Q5_K] = fs_matmul_q5_k, [FS_Q6_K] = fs_matmul_q6_k,      \
    [FS_Q2_K] = fs_matmul_q2_k, [FS_Q3_K] = fs_matmul_q3_k, [FS_IQ4_NL] = fs_matmul_iq4_nl,  \
    [FS_IQ4_XS] = fs_matmul_iq4_xs, [FS_MXFP4] = fs_matmul_mxfp4
