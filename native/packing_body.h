/* Halfs, and reading and quantising the weights of a file; a part of kernels_body.h. */

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

/* the element of a row's block of n that is largest in magnitude, the first of equals; `high` and
 * `low` are the block's largest and smallest */
FS_INLINE float fs_largest(const float *x, const int n, int lane, float high, float low)
{
    if (high != -low) return high > -low ? high : low;
    for (int c = 0; c < n; c++)
        if (x[c * FS_LANES + lane] != 0.0f && fabsf(x[c * FS_LANES + lane]) == high)
            return x[c * FS_LANES + lane];
    return x[lane] == 0.0f ? x[lane] : 0.0f; /* the sign of a zero stays */
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
        d[lane] = fs_largest(x, FS_BLOCK, lane, high[lane], low[lane]) / -8.0f;
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
