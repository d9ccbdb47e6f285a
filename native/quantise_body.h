/* Weights into ggml's blocks as files have them; a part of kernels_body.h. One lane is one block of 32
 * weights, or one sub-block of a K type. engine/blocks/ has the same in NumPy, number for number. */

/* to the nearest whole number, halves to even; |x| below 2^22 */
FS_INLINE v16 fs_rint(v16 x)
{
    const v16 magic = v_set(12582912.0f);
    return v_sub(v_add(x, magic), magic);
}

FS_INLINE v16 fs_clip(v16 x, float low, float high)
{
    return v_min(v_max(x, v_set(low)), v_set(high));
}

/* 1 / d, and 0 for 0, of 16 lanes */
FS_INLINE void fs_reciprocals(const float *d, float *inverse)
{
    v_store(inverse, v_div(v_set(1.0f), v_load(d)));
    for (int lane = 0; lane < FS_LANES; lane++) inverse[lane] = d[lane] != 0.0f ? inverse[lane] : 0.0f;
}

/* the sum of eight parts, each of which added up every eighth number */
FS_INLINE v16 fs_tree(const v16 *s)
{
    v16 first = v_add(v_add(s[0], s[1]), v_add(s[2], s[3]));
    return v_add(first, v_add(v_add(s[4], s[5]), v_add(s[6], s[7])));
}

/* numbers of 16 lanes, whole and below 256: x [n][16] -> rows [16][n] */
FS_INLINE void fs_numbers_of(const float *x, const int n, uint8_t *rows)
{
    _Alignas(64) uint8_t group[64];
    for (int g = 0; g < n / 4; g++) {
        i16x word;
        FS_UNROLL for (int j = 0; j < 4; j++, x += FS_LANES)
            word = j ? i_join(word, v_trunc(v_load(x)), 8 * j) : i_low(v_trunc(v_load(x)));
        i_store(group, word);
        for (int lane = 0; lane < FS_LANES; lane++) memcpy(rows + lane * n + g * 4, group + lane * 4, 4);
    }
}

FS_INLINE void fs_put_half(uint8_t *p, float value)
{
    uint16_t half = fs_float_to_half(value);
    memcpy(p, &half, 2);
}

/* ---- 512 floats of 16 bits ---- */

/* beyond 65504 they become infinite, as in ggml */
static void fs_file_f16(const float *x, uint8_t *out)
{
    for (int i = 0; i < 512; i += FS_LANES) v_store_half(out + i * 2, v_load(x + i));
}

/* the upper halves, to nearest even; NaN stays NaN */
static void fs_file_bf16(const float *x, uint8_t *out)
{
    for (int i = 0; i < 512; i++) {
        uint32_t bits;
        memcpy(&bits, x + i, 4);
        uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16, quiet = bits >> 16 | 0x40;
        uint16_t half = (uint16_t)((bits & 0x7fffffff) > 0x7f800000 ? quiet : rounded);
        memcpy(out + i * 2, &half, 2);
    }
}

/* ---- blocks of 32 with one scale ---- */

/* Q8_0 and Q4_0, by way of a panel's block */
static void fs_file_q8_0(const float *x, uint8_t *out)
{
    _Alignas(64) uint8_t groups[512];
    uint16_t scales[FS_LANES];
    fs_quantise_q8_0(x, groups, scales);
    for (int i = 0; i < 512; i++) groups[i] ^= 128;
    for (int lane = 0; lane < FS_LANES; lane++, out += 34) {
        memcpy(out, scales + lane, 2);
        for (int g = 0; g < 8; g++) memcpy(out + 2 + g * 4, groups + g * 64 + lane * 4, 4);
    }
}

static void fs_file_q4_0(const float *x, uint8_t *out)
{
    _Alignas(64) uint8_t groups[256];
    uint16_t scales[FS_LANES];
    fs_quantise_q4_0(x, groups, scales);
    for (int lane = 0; lane < FS_LANES; lane++, out += 18) {
        memcpy(out, scales + lane, 2);
        for (int g = 0; g < 4; g++) memcpy(out + 2 + g * 4, groups + g * 64 + lane * 4, 4);
    }
}

/* Q4_1, Q5_0 and Q5_1: d = range / most and a minimum, or d = (the largest in magnitude) / -16 */
static void fs_file_low(int to, const float *x, uint8_t *out)
{
    _Alignas(64) float d[FS_LANES], inverse[FS_LANES], high[FS_LANES], low[FS_LANES];
    _Alignas(64) float q[FS_BLOCK * FS_LANES];
    uint8_t numbers[FS_LANES][FS_BLOCK];
    const float most = to == FS_Q4_1 ? 15.0f : 31.0f;
    v16 top = v_load(x), least = top;
    for (int c = 1; c < FS_BLOCK; c++) {
        top = v_max(top, v_load(x + c * FS_LANES));
        least = v_min(least, v_load(x + c * FS_LANES));
    }
    v_store(high, top);
    v_store(low, least);
    if (to == FS_Q5_0)
        for (int lane = 0; lane < FS_LANES; lane++)
            d[lane] = fs_largest(x, FS_BLOCK, lane, high[lane], low[lane]) / -16.0f;
    else
        v_store(d, v_div(v_sub(top, least), v_set(most)));
    fs_reciprocals(d, inverse);
    const v16 base = to == FS_Q5_0 ? v_set(0.0f) : least, half = v_set(to == FS_Q5_0 ? 16.5f : 0.5f);
    for (int c = 0; c < FS_BLOCK; c++) {
        v16 steps = v_mul(v_sub(v_load(x + c * FS_LANES), base), v_load(inverse));
        v_store(q + c * FS_LANES, fs_clip(v_add(steps, half), 0.0f, most));
    }
    fs_numbers_of(q, FS_BLOCK, numbers[0]);
    for (int lane = 0; lane < FS_LANES; lane++) {
        const uint8_t *u = numbers[lane];
        fs_put_half(out, d[lane]), out += 2;
        if (to != FS_Q5_0) fs_put_half(out, low[lane]), out += 2;
        if (to != FS_Q4_1) {
            uint32_t fifth = 0;
            for (int i = 0; i < FS_BLOCK; i++) fifth |= (uint32_t)(u[i] >> 4) << i;
            for (int i = 0; i < 4; i++) *out++ = (uint8_t)(fifth >> 8 * i);
        }
        for (int i = 0; i < 16; i++) *out++ = (uint8_t)((u[i] & 15) | u[16 + i] << 4);
    }
}

/* ---- K types: the scales of least squared error, large weights counting more ---- */

/* what a division of the range is worth: sums over a block of the weights times .. */
typedef struct {
    float q[FS_LANES], qq[FS_LANES], qx[FS_LANES];
} fs_sums;

/* the scale and the minimum of one division of the range, best by its sums; what is no line has
 * determinant 0 */
FS_INLINE void fs_line(const fs_sums *s, const float *total, const float *first, float *scale,
                       float *base, float *determinant)
{
    _Alignas(64) float inverse[FS_LANES], through[FS_LANES];
    for (int i = 0; i < FS_LANES; i++)
        determinant[i] = total[i] * s->qq[i] - s->q[i] * s->q[i];
    fs_reciprocals(determinant, inverse);
    fs_reciprocals(s->qq, through);
    for (int i = 0; i < FS_LANES; i++) {
        scale[i] = (total[i] * s->qx[i] - s->q[i] * first[i]) * inverse[i];
        base[i] = (s->qq[i] * first[i] - s->q[i] * s->qx[i]) * inverse[i];
        /* a minimum may not be negative: then the line goes through 0 */
        scale[i] = base[i] > 0.0f ? s->qx[i] * through[i] : scale[i];
        base[i] = base[i] > 0.0f ? 0.0f : base[i];
        scale[i] = scale[i] > 0.0f ? scale[i] : 0.0f;
    }
}

/* numbers q [32][16] of a division of the range, and their sums */
FS_INLINE void fs_divide(const float *x, const float *weight, v16 low, float factor, float most,
                         v16 inverse, float *q, fs_sums *sums)
{
    v16 sum_q[8], sum_qq[8], sum_qx[8];
    FS_UNROLL for (int c = 0; c < 8; c++)
    {
        sum_q[c] = sum_qq[c] = sum_qx[c] = v_set(0.0f);
        FS_UNROLL for (int i = c * FS_LANES; i < FS_BLOCK * FS_LANES; i += 8 * FS_LANES)
        {
            v16 value = v_load(x + i);
            v16 steps = v_mul(v_mul(v_sub(value, low), v_set(factor)), inverse);
            v16 number = fs_rint(fs_clip(steps, 0.0f, most));
            v16 weighed = v_mul(v_load(weight + i), number);
            v_store(q + i, number);
            sum_q[c] = v_add(sum_q[c], weighed);
            sum_qq[c] = v_add(sum_qq[c], v_mul(weighed, number));
            sum_qx[c] = v_add(sum_qx[c], v_mul(weighed, value));
        }
    }
    v_store(sums->q, fs_tree(sum_q));
    v_store(sums->qq, fs_tree(sum_qq));
    v_store(sums->qx, fs_tree(sum_qx));
}

/* the weighed squared error of scale * q + base */
FS_INLINE v16 fs_error_of(const float *x, const float *weight, const float *q, v16 scale, v16 base)
{
    v16 sum[8];
    FS_UNROLL for (int c = 0; c < 8; c++)
    {
        sum[c] = v_set(0.0f);
        FS_UNROLL for (int i = c * FS_LANES; i < FS_BLOCK * FS_LANES; i += 8 * FS_LANES)
        {
            v16 off = v_sub(v_add(v_mul(scale, v_load(q + i)), base), v_load(x + i));
            sum[c] = v_add(sum[c], v_mul(v_mul(v_load(weight + i), off), off));
        }
    }
    return fs_tree(sum);
}

/* weight [32][16]: how much each counts; their sums, alone and with x */
FS_INLINE void fs_weigh(const float *x, float *weight, float *total, float *first)
{
    _Alignas(64) float root[FS_LANES];
    v16 a[8], b[8];
    for (int c = 0; c < 8; c++) {
        a[c] = v_set(0.0f);
        for (int i = c * FS_LANES; i < FS_BLOCK * FS_LANES; i += 8 * FS_LANES)
            a[c] = v_add(a[c], v_mul(v_load(x + i), v_load(x + i)));
    }
    v_store(root, v_div(fs_tree(a), v_set(32.0f)));
    for (int lane = 0; lane < FS_LANES; lane++) root[lane] = sqrtf(root[lane]);
    for (int c = 0; c < 8; c++) {
        a[c] = b[c] = v_set(0.0f);
        for (int i = c * FS_LANES; i < FS_BLOCK * FS_LANES; i += 8 * FS_LANES) {
            v16 w = v_add(v_load(root), v_abs(v_load(x + i)));
            v_store(weight + i, w);
            a[c] = v_add(a[c], w);
            b[c] = v_add(b[c], v_mul(w, v_load(x + i)));
        }
    }
    v_store(total, fs_tree(a));
    v_store(first, fs_tree(b));
}

/* x [32][16] ~ scale * q - minimum with q of 0 to `most`, neither of the two negative */
static void fs_best_affine(const float *x, int most, float *scale, float *minimum)
{
    _Alignas(64) float weight[FS_BLOCK * FS_LANES], q[FS_BLOCK * FS_LANES];
    _Alignas(64) float total[FS_LANES], first[FS_LANES], error[FS_LANES], now[FS_LANES];
    _Alignas(64) float s[FS_LANES], base[FS_LANES], determinant[FS_LANES], inverse[FS_LANES];
    _Alignas(64) fs_sums sums;
    v16 low = v_set(0.0f), high = v_load(x);
    for (int c = 0; c < FS_BLOCK; c++) {
        low = v_min(low, v_load(x + c * FS_LANES));
        high = v_max(high, v_load(x + c * FS_LANES));
    }
    v16 span = v_sub(high, low);
    fs_weigh(x, weight, total, first);
    v_store(scale, v_div(span, v_set((float)most)));
    v_store(minimum, v_sub(v_set(0.0f), low));
    v_store(s, span);
    fs_reciprocals(s, inverse);
    for (int lane = 0; lane < FS_LANES; lane++) error[lane] = INFINITY;
    for (int step = -6; step <= 6; step++) {
        const float factor = (float)(most + 0.1 * step);
        fs_divide(x, weight, low, factor, (float)most, v_load(inverse), q, &sums);
        fs_line(&sums, total, first, s, base, determinant);
        v_store(now, fs_error_of(x, weight, q, v_load(s), v_load(base)));
        for (int lane = 0; lane < FS_LANES; lane++) {
            int better = (now[lane] < error[lane]) & (determinant[lane] > 0.0f);
            scale[lane] = better ? s[lane] : scale[lane];
            minimum[lane] = better ? -base[lane] : minimum[lane];
            error[lane] = better ? now[lane] : error[lane];
        }
    }
}

FS_INLINE int fs_nearest(float x, float low, float high)
{
    x = x > low ? x : low;
    return (int)lrintf(x < high ? x : high);
}

/* the numbers 0 to 63 of eight scales (or minima) x and their common d, which goes to `half`; x
 * becomes what they stand for */
FS_INLINE void fs_sixths(float *x, uint8_t *numbers, uint8_t *half)
{
    float most = x[0];
    for (int j = 1; j < FS_SUPER; j++) most = x[j] > most ? x[j] : most;
    uint16_t bits = fs_float_to_half(most / 63.0f + 0.0f);
    memcpy(half, &bits, 2);
    const float d = fs_half_to_float(bits), inverse = d != 0.0f ? 1.0f / d : 0.0f;
    for (int j = 0; j < FS_SUPER; j++) {
        numbers[j] = (uint8_t)fs_nearest(x[j] * inverse, 0.0f, 63.0f);
        x[j] = d * (float)numbers[j];
    }
}

/* Q4_K and Q5_K: two blocks of 8 sub-blocks */
static void fs_file_affine(int to, const float *x, uint8_t *out)
{
    _Alignas(64) float scale[FS_LANES], minimum[FS_LANES], inverse[FS_LANES];
    _Alignas(64) float q[FS_BLOCK * FS_LANES];
    uint8_t numbers[FS_LANES][FS_BLOCK], s[FS_SUPER], m[FS_SUPER];
    const int most = to == FS_Q4_K ? 15 : 31;
    const int64_t size = to == FS_Q4_K ? 144 : 176;
    fs_best_affine(x, most, scale, minimum);
    for (int block = 0; block < 2; block++) {
        uint8_t *p = out + block * size;
        fs_sixths(scale + block * FS_SUPER, s, p);
        fs_sixths(minimum + block * FS_SUPER, m, p + 2);
        for (int j = 0; j < 4; j++) {
            p[4 + j] = (uint8_t)(s[j] | s[4 + j] >> 4 << 6);
            p[8 + j] = (uint8_t)(m[j] | m[4 + j] >> 4 << 6);
            p[12 + j] = (uint8_t)((s[4 + j] & 15) | (m[4 + j] & 15) << 4);
        }
    }
    fs_reciprocals(scale, inverse);
    for (int c = 0; c < FS_BLOCK; c++) {
        v16 steps = v_mul(v_add(v_load(x + c * FS_LANES), v_load(minimum)), v_load(inverse));
        v_store(q + c * FS_LANES, fs_rint(fs_clip(steps, 0.0f, (float)most)));
    }
    fs_numbers_of(q, FS_BLOCK, numbers[0]);
    for (int block = 0; block < 2; block++) {
        uint8_t *p = out + block * size + 16;
        const uint8_t(*u)[FS_BLOCK] = (const uint8_t(*)[FS_BLOCK])numbers + block * FS_SUPER;
        if (to == FS_Q5_K) {
            for (int i = 0; i < FS_BLOCK; i++) {
                p[i] = 0;
                for (int j = 0; j < FS_SUPER; j++) p[i] |= (uint8_t)(u[j][i] >> 4 << j);
            }
            p += FS_BLOCK;
        }
        for (int j = 0; j < FS_SUPER; j += 2, p += FS_BLOCK)
            for (int i = 0; i < FS_BLOCK; i++) p[i] = (uint8_t)((u[j][i] & 15) | u[j + 1][i] << 4);
    }
}

/* x [16][16] ~ scale * q with q of -32 to 31 */
static void fs_best_symmetric(const float *x, float *scale)
{
    enum { N = 16 };
    _Alignas(64) float high[FS_LANES], low[FS_LANES], inverse[FS_LANES], gain[FS_LANES];
    _Alignas(64) float match[FS_LANES], square[FS_LANES], largest[FS_LANES], best[FS_LANES];
    v16 top = v_load(x), least = top;
    for (int c = 1; c < N; c++) {
        top = v_max(top, v_load(x + c * FS_LANES));
        least = v_min(least, v_load(x + c * FS_LANES));
    }
    v_store(high, top);
    v_store(low, least);
    for (int lane = 0; lane < FS_LANES; lane++) {
        largest[lane] = fs_largest(x, N, lane, high[lane], low[lane]);
        gain[lane] = -1.0f, scale[lane] = 0.0f;
    }
    fs_reciprocals(largest, inverse);
    for (int tenths = -3; tenths <= 3; tenths++) {
        const v16 factor = v_mul(v_set((float)(-32 + 0.3 * tenths)), v_load(inverse));
        v16 a[8], b[8];
        FS_UNROLL for (int c = 0; c < 8; c++)
        {
            a[c] = b[c] = v_set(0.0f);
            FS_UNROLL for (int i = c * FS_LANES; i < N * FS_LANES; i += 8 * FS_LANES)
            {
                v16 value = v_load(x + i), weight = v_mul(value, value);
                v16 number = fs_rint(fs_clip(v_mul(value, factor), -32.0f, 31.0f));
                a[c] = v_add(a[c], v_mul(v_mul(weight, value), number));
                b[c] = v_add(b[c], v_mul(v_mul(weight, number), number));
            }
        }
        v_store(match, fs_tree(a));
        v_store(square, fs_tree(b));
        fs_reciprocals(square, best);
        for (int lane = 0; lane < FS_LANES; lane++) {
            float explained = match[lane] * match[lane] * best[lane];
            scale[lane] = explained > gain[lane] ? match[lane] * best[lane] : scale[lane];
            gain[lane] = explained > gain[lane] ? explained : gain[lane];
        }
    }
}

/* Q6_K: one block of 16 sub-blocks of 16; the largest scale becomes -128 of d */
static void fs_file_q6_k(const float *x, uint8_t *out)
{
    enum { N = 16 };
    _Alignas(64) float scale[FS_LANES], inverse[FS_LANES], q[N * FS_LANES];
    uint8_t u[256];
    fs_best_symmetric(x, scale);
    float widest = scale[0];
    for (int j = 1; j < N; j++) widest = fabsf(scale[j]) > fabsf(widest) ? scale[j] : widest;
    uint16_t bits = fs_float_to_half(widest / -128.0f + 0.0f);
    memcpy(out + 208, &bits, 2);
    const float d = fs_half_to_float(bits), over = d != 0.0f ? 1.0f / d : 0.0f;
    for (int j = 0; j < N; j++) {
        int s = fs_nearest(scale[j] * over, -128.0f, 127.0f);
        out[192 + j] = (uint8_t)s;
        scale[j] = d * (float)s;
    }
    fs_reciprocals(scale, inverse);
    for (int i = 0; i < N * FS_LANES; i += FS_LANES) {
        v16 number = fs_rint(fs_clip(v_mul(v_load(x + i), v_load(inverse)), -32.0f, 31.0f));
        v_store(q + i, v_add(number, v_set(32.0f)));
    }
    fs_numbers_of(q, N, u);
    for (int half = 0; half < 2; half++) {
        const uint8_t *v = u + half * 128;
        for (int i = 0; i < 64; i++) out[half * 64 + i] = (uint8_t)((v[i] & 15) | v[64 + i] << 4);
        for (int i = 0; i < 32; i++)
            out[128 + half * 32 + i] = (uint8_t)(v[i] >> 4 | v[32 + i] >> 4 << 2 |
                                                 v[64 + i] >> 4 << 4 | v[96 + i] >> 4 << 6);
    }
}

/* x: 512 weights -> out: their bytes in a file, as type `to` */
static void fs_to_file(int32_t to, const float *x, uint8_t *out)
{
    _Alignas(64) float turned[FS_BLOCK * FS_LANES];
    if (to == FS_F32) {
        memcpy(out, x, 512 * sizeof(float));
        return;
    }
    if (to == FS_F16 || to == FS_BF16) {
        to == FS_F16 ? fs_file_f16(x, out) : fs_file_bf16(x, out);
        return;
    }
    if (to == FS_Q6_K) {
        for (int i = 0; i < 2; i++, x += 256, out += 210) {
            fs_turn(x, 64, 16, turned);
            fs_file_q6_k(turned, out);
        }
        return;
    }
    fs_turn(x, 128, FS_BLOCK, turned);
    switch (to) {
    case FS_Q8: fs_file_q8_0(turned, out); break;
    case FS_Q4: fs_file_q4_0(turned, out); break;
    case FS_Q4_K:
    case FS_Q5_K: fs_file_affine(to, turned, out); break;
    default: fs_file_low(to, turned, out); break;
    }
}
