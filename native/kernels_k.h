/* Matmuls of weights of 2 to 6 bits whose blocks have minima, or scales of their own below a scale of
 * 8 blocks: Q4_1, Q5_0, Q5_1, Q2_K to Q6_K; and of those that are looked up: IQ4_NL, IQ4_XS, MXFP4.
 * Part of kernels_body.h; see kernels.h for how they lie.
 *
 * A weight is d * u - offset, with u not negative. Of each block come
 *   acc = fma(sum of u * q, d * xs, acc), the sum without the offset where that is a whole number
 *   acc = fma(minimum, sum of q * xs, acc), where there are minima
 * with xs the scale of the activations q, and d and the minimum exact: a half times a byte. The two
 * halves of a block of Q2_K, Q3_K and Q6_K have each a sum, a d and a minimum. */

/* sums of products in a block */
#define FS_SUMS(KIND) (fs_has_halves(KIND) ? 2 : 1)

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

/* d of a block, or of one of its halves; `scales` are the panel's */
FS_INLINE v16 fs_scale_of(const int KIND, const uint8_t *scales, int64_t b, const int half)
{
    if (!fs_is_super(KIND)) return v_half(scales + b * fs_scale_bytes(KIND));
    const uint8_t *super = scales + b / FS_SUPER * fs_scale_bytes(KIND);
    const int64_t i = b % FS_SUPER * FS_SUMS(KIND) + half;
    const int64_t bytes = fs_has_minima(KIND) ? 64 : 32;
    return v_mul(v_half(super), v_from_i8((const int8_t *)super + bytes + i * FS_LANES));
}

FS_INLINE v16 fs_minimum_of(const int KIND, const uint8_t *scales, int64_t b, const int half)
{
    if (!fs_is_super(KIND)) return v_half(scales + b * fs_scale_bytes(KIND) + 32);
    const uint8_t *super = scales + b / FS_SUPER * fs_scale_bytes(KIND);
    const int64_t i = (FS_SUPER + b % FS_SUPER) * FS_SUMS(KIND) + half;
    const int8_t *n = (const int8_t *)super + 64 + i * FS_LANES;
    return v_sub(v_set(0.0f), v_mul(v_half(super + 32), v_from_i8(n)));
}

/* the sum of a half block's q, of two that FS_HALVES puts into one number */
FS_INLINE int32_t fs_half_of(int32_t shift, const int half)
{
    const int32_t first = (int16_t)shift;
    return half ? (shift - first) / 65536 : first;
}

/* where a sum of products begins: what the offset takes away */
FS_INLINE int32_t fs_start_of(const int KIND, int32_t shift, const int half)
{
    if (KIND == FS_Q5_0) return shift;
    if (KIND != FS_Q6_K && KIND != FS_Q3_K) return 0;
    return -(KIND == FS_Q6_K ? 32 : 4) * fs_half_of(shift, half);
}

FS_INLINE void fs_tile_k(const int KIND, const int P, const int R, const fs_matrix *w,
                         const fs_acts *x, const fs_out *out, int32_t row, int32_t panel)
{
    enum { MOST = 2 };
    const uint8_t *weights = w->data + panel * w->panel_bytes;
    const int8_t *q = x->q + row * x->q_stride;
    const float *scale = x->scale + row * x->b_stride;
    const int32_t *shift = x->shift + row * x->b_stride;
    const int64_t step = w->panel_bytes, size = fs_block_bytes(KIND);
    const uint8_t *scales = weights + w->blocks * size;
    const fs_prefetching plan = fs_plan_ahead(P, w, x, panel, w->blocks, size);
    int64_t far = plan.far;
    const int S = FS_SUMS(KIND);
    v16 acc[MAX_P][MAX_R];
    FS_EACH_PANEL FS_EACH_ROW acc[p][r] = v_set(0.0f);
    for (int64_t b = 0; b < w->blocks; b++, weights += size) {
        if (b == plan.turn) far = plan.behind;
        i16x sum[MAX_P][MAX_R][MOST];
        FS_EACH_ROW FS_EACH_PANEL FS_UNROLL for (int s = 0; s < S; s++)
            sum[p][r][s] = int_set(fs_start_of(KIND, shift[r * x->b_stride + b], s));
        FS_UNROLL for (int g = 0; g < 4; g++)
        {
            w64 low[MAX_P], high[MAX_P];
            FS_EACH_PANEL
            {
                const uint8_t *block = weights + p * step;
                w64 nibbles = w_load(block + (fs_low_bits(KIND) == 4 ? g * 64 : 0));
                if (R == 1 || row == 0) {
                    if (g * 64 < size) v_prefetch(block + far + g * 64);
                    if (g == 0 && size > 256) v_prefetch(block + far + 256);
                    if (g == 0 && size > 320) v_prefetch(block + far + 320);
                }
                low[p] = fs_numbers(KIND, block, nibbles, g);
                high[p] = fs_numbers(KIND, block, nibbles, g + 4);
            }
            FS_EACH_ROW
            {
                const int8_t *c = q + r * x->q_stride + b * FS_BLOCK + g * 4;
                x4 c0 = x4_load(c), c1 = x4_load(c + 16);
                FS_EACH_PANEL sum[p][r][0] = u_dot(sum[p][r][0], low[p], c0);
                FS_EACH_PANEL sum[p][r][S - 1] = u_dot(sum[p][r][S - 1], high[p], c1);
            }
        }
        FS_EACH_PANEL
        {
            FS_UNROLL for (int s = 0; s < S; s++)
            {
                v16 d = fs_scale_of(KIND, scales + p * step, b, s);
                FS_EACH_ROW
                {
                    v16 factor = v_mul(d, v_set(scale[r * x->b_stride + b]));
                    acc[p][r] = v_fma(v_from_int(sum[p][r][s]), factor, acc[p][r]);
                }
            }
            if (fs_has_minima(KIND)) {
                FS_UNROLL for (int s = 0; s < S; s++)
                {
                    v16 m = fs_minimum_of(KIND, scales + p * step, b, s);
                    FS_EACH_ROW
                    {
                        const int64_t i = r * x->b_stride + b;
                        const int32_t all = S == 1 ? shift[i] : fs_half_of(shift[i], s);
                        acc[p][r] = v_fma(m, v_set((float)all * scale[i]), acc[p][r]);
                    }
                }
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
    const int64_t step = w->panel_bytes;
    const uint8_t *scales = weights + (int64_t)w->blocks * 256, *table = fs_table(KIND);
    const fs_prefetching plan = fs_plan_ahead(P, w, x, panel, w->blocks, 256);
    int64_t far = plan.far;
    v16 acc[MAX_P][MAX_R];
    FS_EACH_PANEL FS_EACH_ROW acc[p][r] = v_set(0.0f);
    for (int64_t b = 0; b < w->blocks; b++, weights += 256) {
        if (b == plan.turn) far = plan.behind;
        q8_sum sum[MAX_P][MAX_R];
        FS_EACH_ROW FS_EACH_PANEL sum[p][r] = q8_start(shift[r * x->b_stride + b]);
        FS_UNROLL for (int g = 0; g < 4; g++)
        {
            w8 low[MAX_P], high[MAX_P];
            FS_EACH_PANEL
            {
                w64 nibbles = w_load(weights + p * step + g * 64);
                if (R == 1 || row == 0) v_prefetch(weights + p * step + g * 64 + far);
                low[p] = q8_of(w_table(table, w_low(nibbles)));
                high[p] = q8_of(w_table(table, w_high(nibbles)));
            }
            FS_EACH_ROW
            {
                const int8_t *c = q + r * x->q_stride + b * FS_BLOCK + g * 4;
                x4 c0 = x4_load(c), c1 = x4_load(c + 16);
                FS_EACH_PANEL sum[p][r] = q8_dot(sum[p][r], low[p], c0);
                FS_EACH_PANEL sum[p][r] = q8_dot(sum[p][r], high[p], c1);
            }
        }
        FS_EACH_PANEL
        {
            v16 d = fs_scale_of(KIND, scales + p * step, b, 0);
            FS_EACH_ROW
            {
                v16 s = v_from_int(q8_finish(sum[p][r], shift[r * x->b_stride + b]));
                acc[p][r] = v_fma(s, v_mul(d, v_set(scale[r * x->b_stride + b])), acc[p][r]);
            }
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
