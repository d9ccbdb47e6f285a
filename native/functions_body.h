/* The part of kernels_body.h that is functions of a number, and norms: over the virtual vector. */

/* e^x within 2 ulp for x in [-87, 88]. Cody and Waite's reduction, degree 6 by Horner. */
FS_INLINE v16 v_exp_within(v16 x)
{
    const v16 magic = v_set(12582912.0f); /* 1.5 * 2^23: adding it rounds to an integer */
    v16 t = v_fma(x, v_set(1.44269504f), magic);
    v16 n = v_sub(t, magic);
    v16 r = v_fma(n, v_set(-0.693145752f), x); /* ln 2 in two parts */
    r = v_fma(n, v_set(-1.42860677e-6f), r);
    v16 p = v_set(1.38888890e-3f);
    p = v_fma(p, r, v_set(8.33333377e-3f));
    p = v_fma(p, r, v_set(4.16666679e-2f));
    p = v_fma(p, r, v_set(1.66666672e-1f));
    p = v_fma(p, r, v_set(0.5f));
    p = v_fma(p, r, v_set(1.0f));
    p = v_fma(p, r, v_set(1.0f));
    return v_scale2(p, t);
}

/* the same of x clamped to that */
FS_INLINE v16 v_exp(v16 x) { return v_exp_within(v_min(v_max(x, v_set(-87.0f)), v_set(88.0f))); }

static void fs_rmsnorm(const float *x, const float *w, int32_t width, float eps, float *y)
{
    v16 sum = v_set(0.0f);
    int32_t whole = width / FS_LANES * FS_LANES, rest = width - whole;
    for (int32_t i = 0; i < whole; i += FS_LANES) {
        v16 a = v_load(x + i);
        sum = v_fma(a, a, sum);
    }
    if (rest) {
        v16 a = v_load_n(x + whole, rest);
        sum = v_fma(a, a, sum);
    }
    v16 scale = v_set(1.0f / sqrtf(v_sum(sum) / (float)width + eps));
    for (int32_t i = 0; i < whole; i += FS_LANES)
        v_store(y + i, v_mul(v_mul(v_load(x + i), scale), v_load(w + i)));
    if (rest) {
        v16 a = v_mul(v_mul(v_load_n(x + whole, rest), scale), v_load_n(w + whole, rest));
        v_store_n(y + whole, a, rest);
    }
}

static void fs_layernorm(const float *x, const float *w, const float *b, int32_t width, float eps,
                         float *y)
{
    v16 sum = v_set(0.0f), squares = sum;
    int32_t whole = width / FS_LANES * FS_LANES, rest = width - whole;
    for (int32_t i = 0; i < whole; i += FS_LANES) sum = v_add(sum, v_load(x + i));
    if (rest) sum = v_add(sum, v_load_n(x + whole, rest));
    v16 mean = v_set(v_sum(sum) / (float)width);
    for (int32_t i = 0; i < whole; i += FS_LANES) {
        v16 a = v_sub(v_load(x + i), mean);
        squares = v_fma(a, a, squares);
    }
    if (rest) {
        v16 a = v_keep_n(v_sub(v_load_n(x + whole, rest), mean), v_set(0.0f), rest);
        squares = v_fma(a, a, squares);
    }
    v16 scale = v_set(1.0f / sqrtf(v_sum(squares) / (float)width + eps));
    for (int32_t i = 0; i < width; i += FS_LANES) {
        int n = width - i < FS_LANES ? width - i : FS_LANES;
        v16 a = v_mul(v_mul(v_sub(v_load_n(x + i, n), mean), scale), v_load_n(w + i, n));
        v_store_n(y + i, b ? v_add(a, v_load_n(b + i, n)) : a, n);
    }
}

/* x / (1 + e^-z): x times the logistic function of z */
FS_INLINE v16 v_logistic(v16 x, v16 z)
{
    return v_div(x, v_add(v_set(1.0f), v_exp(v_sub(v_set(0.0f), z))));
}

/* (1 - e^-2x) / (1 + e^-2x) */
FS_INLINE v16 v_tanh(v16 x)
{
    v16 e = v_exp(v_mul(x, v_set(-2.0f))), one = v_set(1.0f);
    return v_div(v_sub(one, e), v_add(one, e));
}

/* 0.5 x (1 + erf(x / sqrt 2)), erf by Abramowitz and Stegun 7.1.26: 1 - erf(|z|) = p(t) e^(-z^2),
 * t = 1 / (1 + 0.3275911 |z|) */
FS_INLINE v16 v_gelu(v16 x)
{
    v16 z = v_abs(v_mul(x, v_set(0.707106781f))), one = v_set(1.0f), zero = v_set(0.0f);
    v16 t = v_div(one, v_fma(z, v_set(0.3275911f), one));
    v16 p = v_set(1.061405429f);
    p = v_fma(p, t, v_set(-1.453152027f));
    p = v_fma(p, t, v_set(1.421413741f));
    p = v_fma(p, t, v_set(-0.284496736f));
    p = v_fma(p, t, v_set(0.254829592f));
    v16 tail = v_mul(v_mul(p, t), v_exp(v_sub(zero, v_mul(z, z))));
    return v_sub(v_max(x, zero), v_mul(v_mul(v_abs(x), v_set(0.5f)), tail));
}

/* x times the logistic function of 2 sqrt(2 / pi) (x + 0.044715 x^3) */
FS_INLINE v16 v_gelu_tanh(v16 x)
{
    v16 cubic = v_mul(v_mul(v_mul(v_set(0.044715f), x), x), x);
    return v_logistic(x, v_mul(v_set(1.595769122f), v_add(x, cubic)));
}

FS_INLINE v16 v_activate(const int KIND, v16 x)
{
    if (KIND == FS_ACT_GELU) return v_gelu(x);
    if (KIND == FS_ACT_GELU_TANH) return v_gelu_tanh(x);
    return v_logistic(x, x);
}

FS_INLINE void fs_activate_kind(const int KIND, const float *gate, const float *up, int32_t width,
                                float *y)
{
    int32_t i = 0;
    for (; i + FS_LANES <= width; i += FS_LANES) {
        v16 a = v_activate(KIND, v_load(gate + i));
        v_store(y + i, up ? v_mul(a, v_load(up + i)) : a);
    }
    if (i < width) {
        int n = width - i;
        v16 a = v_activate(KIND, v_load_n(gate + i, n));
        v_store_n(y + i, up ? v_mul(a, v_load_n(up + i, n)) : a, n);
    }
}

static void fs_activate(int32_t activation, const float *gate, const float *up, int32_t width,
                        float *y)
{
    switch (activation) {
    case FS_ACT_GELU: fs_activate_kind(FS_ACT_GELU, gate, up, width, y); break;
    case FS_ACT_GELU_TANH: fs_activate_kind(FS_ACT_GELU_TANH, gate, up, width, y); break;
    default: fs_activate_kind(FS_ACT_SILU, gate, up, width, y);
    }
}

/* cap * tanh(x / cap) */
FS_INLINE v16 v_softcap(v16 x, v16 cap) { return v_mul(cap, v_tanh(v_div(x, cap))); }

static void fs_softcap(float *x, int32_t width, float factor, float cap)
{
    for (int32_t i = 0; i < width; i += FS_LANES) {
        int n = width - i < FS_LANES ? width - i : FS_LANES;
        v16 a = v_mul(v_load_n(x + i, n), v_set(factor));
        v_store_n(x + i, cap != 0.0f ? v_softcap(a, v_set(cap)) : a, n);
    }
}

/* n lanes of x turned: x times cosines, and those it turns with times sines */
FS_INLINE void fs_rotate_n(float *y, v16 x, v16 with, const float *cosines, const float *sines, int n)
{
    v16 c = n == FS_LANES ? v_load(cosines) : v_load_n(cosines, n);
    v16 s = n == FS_LANES ? v_load(sines) : v_load_n(sines, n);
    v16 z = v_add(v_mul(x, c), v_mul(with, s));
    if (n == FS_LANES) v_store(y, z);
    else v_store_n(y, z, n);
}

static void fs_rotate(const float *x, const float *turns, int32_t width, int32_t half, float *y)
{
    const float *sines = turns + width;
    const int32_t pairs = width / 2;
    for (int32_t i = 0; i < (half ? pairs : width); i += FS_LANES) {
        const int32_t rest = (half ? pairs : width) - i, n = rest < FS_LANES ? rest : FS_LANES;
        v16 a = n == FS_LANES ? v_load(x + i) : v_load_n(x + i, n);
        if (!half) {
            fs_rotate_n(y + i, a, v_swap(a), turns + i, sines + i, n);
            continue;
        }
        v16 b = n == FS_LANES ? v_load(x + pairs + i) : v_load_n(x + pairs + i, n);
        fs_rotate_n(y + i, a, b, turns + i, sines + i, n);
        fs_rotate_n(y + pairs + i, b, a, turns + pairs + i, sines + pairs + i, n);
    }
}
