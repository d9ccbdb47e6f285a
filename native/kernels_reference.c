/* The reference kernels: plain C, the definition of every result, and what runs where no faster
 * instruction set is known. A virtual vector is an array of 16 numbers. */
#include <math.h>
#include <string.h>

#include "kernels.h"

typedef struct {
    float f[FS_LANES];
} v16;
typedef struct {
    int32_t i[FS_LANES];
} i16x;
typedef struct {
    int8_t x[4];
} x4;
typedef struct {
    uint8_t u[FS_LANES][4];
} w64;

#define FS_INLINE static inline
#define EACH for (int lane = 0; lane < FS_LANES; lane++)
#define LANEWISE(expression) \
    v16 y;                   \
    EACH y.f[lane] = (expression); \
    return y

FS_INLINE v16 v_set(float a) { LANEWISE(a); }
FS_INLINE v16 v_load(const float *p) { LANEWISE(p[lane]); }
FS_INLINE v16 v_load_n(const float *p, int n) { LANEWISE(lane < n ? p[lane] : 0.0f); }
FS_INLINE void v_store(float *p, v16 a) { memcpy(p, a.f, sizeof a.f); }
FS_INLINE void v_store_n(float *p, v16 a, int n) { memcpy(p, a.f, (size_t)n * sizeof(float)); }
FS_INLINE v16 v_half(const void *p)
{
    uint16_t halfs[FS_LANES];
    memcpy(halfs, p, sizeof halfs);
    LANEWISE(fs_half_to_float(halfs[lane]));
}
/* the upper halves of floats */
FS_INLINE v16 v_brain(const void *p)
{
    uint16_t halfs[FS_LANES];
    v16 y;
    memcpy(halfs, p, sizeof halfs);
    EACH
    {
        uint32_t bits = (uint32_t)halfs[lane] << 16;
        memcpy(&y.f[lane], &bits, 4);
    }
    return y;
}
/* to nearest even */
FS_INLINE void v_store_half(void *p, v16 a)
{
    uint16_t halfs[FS_LANES];
    EACH halfs[lane] = fs_float_to_half(a.f[lane]);
    memcpy(p, halfs, sizeof halfs);
}
FS_INLINE v16 v_from_i8(const int8_t *p) { LANEWISE((float)p[lane]); }
FS_INLINE v16 v_fma(v16 a, v16 b, v16 c) { LANEWISE(fmaf(a.f[lane], b.f[lane], c.f[lane])); }
FS_INLINE v16 v_add(v16 a, v16 b) { LANEWISE(a.f[lane] + b.f[lane]); }
FS_INLINE v16 v_sub(v16 a, v16 b) { LANEWISE(a.f[lane] - b.f[lane]); }
FS_INLINE v16 v_mul(v16 a, v16 b) { LANEWISE(a.f[lane] * b.f[lane]); }
FS_INLINE v16 v_div(v16 a, v16 b) { LANEWISE(a.f[lane] / b.f[lane]); }
FS_INLINE v16 v_max(v16 a, v16 b) { LANEWISE(a.f[lane] > b.f[lane] ? a.f[lane] : b.f[lane]); }
FS_INLINE v16 v_min(v16 a, v16 b) { LANEWISE(a.f[lane] < b.f[lane] ? a.f[lane] : b.f[lane]); }
FS_INLINE v16 v_abs(v16 a) { LANEWISE(fabsf(a.f[lane])); }
/* each lane and its neighbour change places */
FS_INLINE v16 v_swap(v16 a) { LANEWISE(a.f[lane ^ 1]); }
/* lanes below n of a, the others of b */
FS_INLINE v16 v_keep_n(v16 a, v16 b, int n) { LANEWISE(lane < n ? a.f[lane] : b.f[lane]); }
/* p * 2^n, where n is in the low bits of t = n + 1.5 * 2^23 */
FS_INLINE v16 v_scale2(v16 p, v16 t)
{
    EACH
    {
        uint32_t exponent, bits;
        memcpy(&exponent, &t.f[lane], 4);
        memcpy(&bits, &p.f[lane], 4);
        bits += exponent << 23;
        memcpy(&p.f[lane], &bits, 4);
    }
    return p;
}
/* the sum of 16 lanes: lane i with i + 8, then + 4, + 2, + 1 */
FS_INLINE float v_sum(v16 a)
{
    for (int half = FS_LANES / 2; half; half /= 2)
        for (int lane = 0; lane < half; lane++) a.f[lane] += a.f[lane + half];
    return a.f[0];
}
FS_INLINE float v_hmax(v16 a)
{
    for (int half = FS_LANES / 2; half; half /= 2)
        for (int lane = 0; lane < half; lane++)
            a.f[lane] = a.f[lane] > a.f[lane + half] ? a.f[lane] : a.f[lane + half];
    return a.f[0];
}
/* rounds to nearest even into int8, stores 16, returns their sum */
FS_INLINE int32_t v_store_i8(int8_t *p, v16 a)
{
    int32_t sum = 0;
    EACH
    {
        p[lane] = (int8_t)lrintf(a.f[lane]);
        sum += p[lane];
    }
    return sum;
}
/* 16 halfs without their signs, compared as the whole numbers that their bits are; the least above zero */
typedef struct {
    uint16_t u[FS_LANES];
} h16;
FS_INLINE h16 h_least(void)
{
    h16 y;
    EACH y.u[lane] = 1;
    return y;
}
FS_INLINE h16 h_larger(const uint8_t *halfs, h16 a)
{
    h16 b;
    memcpy(b.u, halfs, sizeof b.u);
    EACH
    {
        b.u[lane] &= 0x7fff;
        if (b.u[lane] > a.u[lane]) a.u[lane] = b.u[lane];
    }
    return a;
}
FS_INLINE v16 h_floats(h16 a) { return v_half(a.u); }
/* levels in 1 and what a level is worth where the largest scale is `most`, its power of two `levels` */
FS_INLINE void v_units(v16 most, const float levels, v16 *levels_in_one, v16 *unit)
{
    EACH
    {
        uint32_t exponent, bits;
        memcpy(&exponent, &most.f[lane], 4);
        exponent &= FS_EXPONENT;
        bits = FS_LEVELS_IN_ONE(levels) - exponent;
        memcpy(&levels_in_one->f[lane], &bits, 4);
        bits = FS_UNIT(levels) + exponent;
        memcpy(&unit->f[lane], &bits, 4);
    }
}
FS_INLINE v16 v_from_int(i16x a) { LANEWISE((float)a.i[lane]); }
/* to the nearest whole number, halves away from zero; |a| <= 127 */
FS_INLINE i16x v_round(v16 a)
{
    i16x y;
    EACH y.i[lane] = (int32_t)roundf(a.f[lane]);
    return y;
}
/* to the nearest whole number, halves to the even one */
FS_INLINE i16x v_nearest(v16 a)
{
    i16x y;
    EACH y.i[lane] = (int32_t)lrintf(a.f[lane]);
    return y;
}
/* a * b, which is exact, to the nearest whole number, halves to the even one: at least the lower 16 bits */
FS_INLINE i16x v_nearest16(v16 a, v16 b) { return v_nearest(v_mul(a, b)); }
FS_INLINE i16x v_trunc(v16 a)
{
    i16x y;
    EACH y.i[lane] = (int32_t)a.f[lane];
    return y;
}
/* the low byte of each; a with that of b put at bit `shift` */
FS_INLINE i16x i_low(i16x a)
{
    EACH a.i[lane] &= 255;
    return a;
}
FS_INLINE i16x i_join(i16x a, i16x b, int shift)
{
    EACH a.i[lane] = (int32_t)((uint32_t)a.i[lane] | ((uint32_t)b.i[lane] & 255) << shift);
    return a;
}
FS_INLINE void i_store(void *p, i16x a) { memcpy(p, a.i, sizeof a.i); }
/* sum + a * b; i_mla16: where a and b are within 16 bits */
FS_INLINE i16x i_mla(i16x sum, i16x a, i16x b)
{
    EACH sum.i[lane] = (int32_t)((uint32_t)sum.i[lane] + (uint32_t)a.i[lane] * (uint32_t)b.i[lane]);
    return sum;
}
#define i_mla16(sum, a, b) i_mla(sum, a, b)

/* two int8 a lane, as numbers of 16 bits */
typedef struct {
    int16_t i[FS_LANES][2];
} pairs;
FS_INLINE pairs pairs_load(const uint8_t *p)
{
    pairs y;
    EACH for (int j = 0; j < 2; j++) y.i[lane][j] = (int8_t)p[lane * 2 + j];
    return y;
}
/* each lane's first, or second */
FS_INLINE i16x pairs_of(pairs a, const int second)
{
    i16x y;
    EACH y.i[lane] = a.i[lane][second];
    return y;
}
/* sum + a's first * the lower half of b + its second * the upper one */
FS_INLINE i16x pairs_dot(i16x sum, pairs a, int32_t b)
{
    EACH sum.i[lane] += a.i[lane][0] * (int16_t)b + a.i[lane][1] * (int16_t)(b >> 16);
    return sum;
}

/* integer dots: 16 rows of 4 weights with the same 4 activations */
FS_INLINE x4 x4_load(const int8_t *p)
{
    x4 y;
    memcpy(y.x, p, 4);
    return y;
}
FS_INLINE i16x int_set(int32_t a)
{
    i16x y;
    EACH y.i[lane] = a;
    return y;
}
FS_INLINE i16x int_dot(i16x sum, w64 w, x4 x)
{
    EACH for (int j = 0; j < 4; j++) sum.i[lane] += (int32_t)w.u[lane][j] * x.x[j];
    return sum;
}
FS_INLINE w64 w_load(const uint8_t *p)
{
    w64 y;
    memcpy(y.u, p, sizeof y.u);
    return y;
}
FS_INLINE w64 w_low(w64 w)
{
    EACH for (int j = 0; j < 4; j++) w.u[lane][j] &= 15;
    return w;
}
FS_INLINE w64 w_high(w64 w)
{
    EACH for (int j = 0; j < 4; j++) w.u[lane][j] >>= 4;
    return w;
}
/* the bits of `mask` in each byte after a shift to the left (to the right where `left` is negative);
 * mask has none of those that come from beyond the byte */
FS_INLINE w64 w_bits(w64 w, int left, int mask)
{
    EACH for (int j = 0; j < 4; j++)
        w.u[lane][j] = (uint8_t)((left >= 0 ? w.u[lane][j] << left : w.u[lane][j] >> -left) & mask);
    return w;
}
FS_INLINE w64 w_or(w64 a, w64 b)
{
    EACH for (int j = 0; j < 4; j++) a.u[lane][j] |= b.u[lane][j];
    return a;
}
/* entry u of 16 bytes, as q8_load() has them */
FS_INLINE w64 q8_table(const uint8_t *table, w64 w)
{
    EACH for (int j = 0; j < 4; j++) w.u[lane][j] = table[w.u[lane][j]];
    return w;
}

typedef w64 w8;
typedef i16x q8_sum;
typedef i16x q4_sum;
#define q8_load(p) w_load(p)
#define q8_start(shift) int_set(shift)
#define q8_dot(sum, w, x) int_dot(sum, w, x)
#define q8_finish(sum, shift) (sum)
#define q4_start(shift) int_set(shift)
#define q4_dot(sum, w, x) int_dot(sum, w, x)
#define q4_finish(sum, shift) (sum)
/* weights of up to 6 bits; of up to 4 q4_dot serves, whose sums may be narrower */
#define u_dot(sum, w, x) int_dot(sum, w, x)
#define v_prefetch(p) ((void)(p))
#define v_prefetch_second(p) ((void)(p))
#define turn_eights(rows, stride, words, y) 0
#define FS_UNROLL /* its tiles are one by one */

/* panels and rows of a tile held at once: for one row; for many rows (large, small tile) */
enum { F_ONE = 1, F_PANELS = 1, F_ROWS = 1, F_FEW = 1 };
enum { Q8_ONE = 1, Q8_PANELS = 1, Q8_ROWS = 1, Q8_FEW = 1 };
enum { Q4_ONE = 1, Q4_PANELS = 1, Q4_ROWS = 1, Q4_FEW = 1 };
enum { K_ONE = 1, K_PANELS = 1, K_ROWS = 1, K6_ROWS = 1, K_FEW = 1 };
enum { MAX_P = 1, MAX_R = 1 };
/* attention: queries at once (many, few), blocks of keys and vectors of values with them, alone */
enum { A_MANY = 1, A_FEW = 1, A_BLOCKS = 1, A_WIDE = 1, A_ALONE = 1 };

#include "kernels_body.h"

static const fs_kernels TABLE = {.name = "reference", FS_BODY_ENTRIES};

fs_kernels fs_kernels_reference(void) { return TABLE; }
