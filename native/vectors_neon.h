/* The virtual vector in NEON as every 64-bit ARM has it: four registers of 4 lanes. Dots of Q8 and
 * Q4 weights are left to the including file: they come with ARMv8.2's dot product or without. */
#include <arm_neon.h>
#include <math.h>
#include <string.h>

#include "kernels.h"

#define FS_INLINE static inline __attribute__((always_inline))

typedef struct {
    float32x4_t a, b, c, d;
} v16;
typedef struct {
    int32x4_t a, b, c, d;
} i16x;
typedef int8x16_t x4; /* four activations, four times */
typedef struct {
    int8x16_t a, b, c, d;
} w64;

#define QUAD1(f, x) \
    (v16) { f((x).a), f((x).b), f((x).c), f((x).d) }
#define QUAD2(f, x, y) \
    (v16) { f((x).a, (y).a), f((x).b, (y).b), f((x).c, (y).c), f((x).d, (y).d) }

FS_INLINE v16 v_set(float x)
{
    float32x4_t four = vdupq_n_f32(x);
    return (v16){four, four, four, four};
}
FS_INLINE v16 v_load(const float *p)
{
    return (v16){vld1q_f32(p), vld1q_f32(p + 4), vld1q_f32(p + 8), vld1q_f32(p + 12)};
}
FS_INLINE void v_store(float *p, v16 x)
{
    vst1q_f32(p, x.a);
    vst1q_f32(p + 4, x.b);
    vst1q_f32(p + 8, x.c);
    vst1q_f32(p + 12, x.d);
}
FS_INLINE v16 v_load_n(const float *p, int n)
{
    float lanes[FS_LANES] = {0};
    memcpy(lanes, p, (size_t)n * sizeof(float));
    return v_load(lanes);
}
FS_INLINE void v_store_n(float *p, v16 x, int n)
{
    float lanes[FS_LANES];
    v_store(lanes, x);
    memcpy(p, lanes, (size_t)n * sizeof(float));
}
FS_INLINE v16 v_half(const void *p)
{
    uint16x8_t low = vreinterpretq_u16_u8(vld1q_u8((const uint8_t *)p));
    uint16x8_t high = vreinterpretq_u16_u8(vld1q_u8((const uint8_t *)p + 16));
    float16x8_t x = vreinterpretq_f16_u16(low), y = vreinterpretq_f16_u16(high);
    return (v16){vcvt_f32_f16(vget_low_f16(x)), vcvt_high_f32_f16(x),
                 vcvt_f32_f16(vget_low_f16(y)), vcvt_high_f32_f16(y)};
}
FS_INLINE void v_store_half(void *p, v16 x)
{
    float16x8_t low = vcvt_high_f16_f32(vcvt_f16_f32(x.a), x.b);
    float16x8_t high = vcvt_high_f16_f32(vcvt_f16_f32(x.c), x.d);
    vst1q_u8((uint8_t *)p, vreinterpretq_u8_f16(low));
    vst1q_u8((uint8_t *)p + 16, vreinterpretq_u8_f16(high));
}
FS_INLINE v16 v_from_i8(const int8_t *p)
{
    const int8x16_t bytes = vld1q_s8(p);
    const int16x8_t low = vmovl_s8(vget_low_s8(bytes)), high = vmovl_high_s8(bytes);
    return (v16){vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))), vcvtq_f32_s32(vmovl_high_s16(low)),
                 vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))), vcvtq_f32_s32(vmovl_high_s16(high))};
}
FS_INLINE v16 v_fma(v16 x, v16 y, v16 z)
{
    return (v16){vfmaq_f32(z.a, x.a, y.a), vfmaq_f32(z.b, x.b, y.b), vfmaq_f32(z.c, x.c, y.c),
                 vfmaq_f32(z.d, x.d, y.d)};
}
FS_INLINE v16 v_add(v16 x, v16 y) { return QUAD2(vaddq_f32, x, y); }
FS_INLINE v16 v_sub(v16 x, v16 y) { return QUAD2(vsubq_f32, x, y); }
FS_INLINE v16 v_mul(v16 x, v16 y) { return QUAD2(vmulq_f32, x, y); }
FS_INLINE v16 v_div(v16 x, v16 y) { return QUAD2(vdivq_f32, x, y); }
/* not vmaxq and vminq: of a NaN and a number, and of the two zeros, they choose otherwise */
FS_INLINE float32x4_t larger(float32x4_t x, float32x4_t y)
{
    return vbslq_f32(vcgtq_f32(x, y), x, y);
}
FS_INLINE float32x4_t smaller(float32x4_t x, float32x4_t y)
{
    return vbslq_f32(vcltq_f32(x, y), x, y);
}
FS_INLINE v16 v_max(v16 x, v16 y) { return QUAD2(larger, x, y); }
FS_INLINE v16 v_min(v16 x, v16 y) { return QUAD2(smaller, x, y); }
FS_INLINE v16 v_abs(v16 x) { return QUAD1(vabsq_f32, x); }
FS_INLINE float32x4_t keep_below(float32x4_t x, float32x4_t y, int n)
{
    static const int32_t LANE[4] = {0, 1, 2, 3};
    return vbslq_f32(vcgtq_s32(vdupq_n_s32(n), vld1q_s32(LANE)), x, y);
}
FS_INLINE v16 v_swap(v16 x)
{
    return (v16){vrev64q_f32(x.a), vrev64q_f32(x.b), vrev64q_f32(x.c), vrev64q_f32(x.d)};
}
FS_INLINE v16 v_keep_n(v16 x, v16 y, int n)
{
    return (v16){keep_below(x.a, y.a, n), keep_below(x.b, y.b, n - 4),
                 keep_below(x.c, y.c, n - 8), keep_below(x.d, y.d, n - 12)};
}
FS_INLINE float32x4_t scale2(float32x4_t p, float32x4_t t)
{
    int32x4_t exponent = vshlq_n_s32(vreinterpretq_s32_f32(t), 23);
    return vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(p), exponent));
}
FS_INLINE v16 v_scale2(v16 p, v16 t) { return QUAD2(scale2, p, t); }
FS_INLINE float v_sum(v16 x)
{
    float32x4_t four = vaddq_f32(vaddq_f32(x.a, x.c), vaddq_f32(x.b, x.d));
    float32x2_t two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
    return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
}
FS_INLINE float v_hmax(v16 x)
{
    float32x4_t four = larger(larger(x.a, x.c), larger(x.b, x.d));
    float32x4_t two = larger(four, vextq_f32(four, four, 2));
    return vgetq_lane_f32(larger(two, vextq_f32(two, two, 1)), 0);
}
FS_INLINE int32_t v_store_i8(int8_t *p, v16 x)
{
    int16x8_t low = vqmovn_high_s32(vqmovn_s32(vcvtnq_s32_f32(x.a)), vcvtnq_s32_f32(x.b));
    int16x8_t high = vqmovn_high_s32(vqmovn_s32(vcvtnq_s32_f32(x.c)), vcvtnq_s32_f32(x.d));
    int8x16_t q = vqmovn_high_s16(vqmovn_s16(low), high);
    vst1q_s8(p, q);
    return vaddlvq_s8(q);
}
FS_INLINE v16 v_from_int(i16x x) { return QUAD1(vcvtq_f32_s32, x); }
FS_INLINE x4 x4_load(const int8_t *p)
{
    int32_t four;
    memcpy(&four, p, 4);
    return vreinterpretq_s8_s32(vdupq_n_s32(four));
}
FS_INLINE i16x int_set(int32_t x)
{
    int32x4_t four = vdupq_n_s32(x);
    return (i16x){four, four, four, four};
}
FS_INLINE w64 w_load(const uint8_t *p)
{
    const int8_t *q = (const int8_t *)p;
    return (w64){vld1q_s8(q), vld1q_s8(q + 16), vld1q_s8(q + 32), vld1q_s8(q + 48)};
}
FS_INLINE int8x16_t low_nibbles(int8x16_t w) { return vandq_s8(w, vdupq_n_s8(15)); }
FS_INLINE int8x16_t high_nibbles(int8x16_t w)
{
    return vreinterpretq_s8_u8(vshrq_n_u8(vreinterpretq_u8_s8(w), 4));
}
FS_INLINE w64 w_low(w64 w)
{
    return (w64){low_nibbles(w.a), low_nibbles(w.b), low_nibbles(w.c), low_nibbles(w.d)};
}
FS_INLINE w64 w_high(w64 w)
{
    return (w64){high_nibbles(w.a), high_nibbles(w.b), high_nibbles(w.c), high_nibbles(w.d)};
}
FS_INLINE int8x16_t bits_of(int8x16_t w, int left, int mask)
{
    uint8x16_t shifted = vshlq_u8(vreinterpretq_u8_s8(w), vdupq_n_s8((int8_t)left));
    return vreinterpretq_s8_u8(vandq_u8(shifted, vdupq_n_u8((uint8_t)mask)));
}
FS_INLINE w64 w_bits(w64 w, int left, int mask)
{
    return (w64){bits_of(w.a, left, mask), bits_of(w.b, left, mask), bits_of(w.c, left, mask),
                 bits_of(w.d, left, mask)};
}
FS_INLINE w64 w_or(w64 x, w64 y)
{
    return (w64){vorrq_s8(x.a, y.a), vorrq_s8(x.b, y.b), vorrq_s8(x.c, y.c), vorrq_s8(x.d, y.d)};
}
FS_INLINE float32x4_t four_brain(const uint16_t *p)
{
    return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16));
}
FS_INLINE v16 v_brain(const void *p)
{
    const uint16_t *halfs = p;
    return (v16){four_brain(halfs), four_brain(halfs + 4), four_brain(halfs + 8),
                 four_brain(halfs + 12)};
}
FS_INLINE i16x v_round(v16 x) /* halves away from zero */
{
    return (i16x){vcvtaq_s32_f32(x.a), vcvtaq_s32_f32(x.b), vcvtaq_s32_f32(x.c),
                  vcvtaq_s32_f32(x.d)};
}
FS_INLINE i16x v_trunc(v16 x)
{
    return (i16x){vcvtq_s32_f32(x.a), vcvtq_s32_f32(x.b), vcvtq_s32_f32(x.c), vcvtq_s32_f32(x.d)};
}
typedef struct {
    uint16x8_t a, b;
} h16;
FS_INLINE h16 h_least(void) { return (h16){vdupq_n_u16(1), vdupq_n_u16(1)}; }
FS_INLINE h16 h_larger(const uint8_t *halfs, h16 x)
{
    const uint16x8_t size = vdupq_n_u16(0x7fff);
    const uint16x8_t a = vreinterpretq_u16_u8(vld1q_u8(halfs)), b = vreinterpretq_u16_u8(vld1q_u8(halfs + 16));
    return (h16){vmaxq_u16(x.a, vandq_u16(a, size)), vmaxq_u16(x.b, vandq_u16(b, size))};
}
FS_INLINE v16 h_floats(h16 x)
{
    uint16_t halfs[FS_LANES];
    vst1q_u16(halfs, x.a);
    vst1q_u16(halfs + 8, x.b);
    return v_half(halfs);
}
FS_INLINE void units_of_four(float32x4_t most, const float levels, float32x4_t *levels_in_one,
                             float32x4_t *unit)
{
    uint32x4_t e = vandq_u32(vreinterpretq_u32_f32(most), vdupq_n_u32(FS_EXPONENT));
    *levels_in_one = vreinterpretq_f32_u32(vsubq_u32(vdupq_n_u32(FS_LEVELS_IN_ONE(levels)), e));
    *unit = vreinterpretq_f32_u32(vaddq_u32(vdupq_n_u32(FS_UNIT(levels)), e));
}
FS_INLINE void v_units(v16 most, const float levels, v16 *levels_in_one, v16 *unit)
{
    units_of_four(most.a, levels, &levels_in_one->a, &unit->a);
    units_of_four(most.b, levels, &levels_in_one->b, &unit->b);
    units_of_four(most.c, levels, &levels_in_one->c, &unit->c);
    units_of_four(most.d, levels, &levels_in_one->d, &unit->d);
}
FS_INLINE i16x v_nearest(v16 x) /* halves to even */
{
    return (i16x){vcvtnq_s32_f32(x.a), vcvtnq_s32_f32(x.b), vcvtnq_s32_f32(x.c),
                  vcvtnq_s32_f32(x.d)};
}
FS_INLINE i16x v_nearest16(v16 x, v16 y) { return v_nearest(v_mul(x, y)); }
FS_INLINE i16x i_mla(i16x sum, i16x x, i16x y)
{
    return (i16x){vmlaq_s32(sum.a, x.a, y.a), vmlaq_s32(sum.b, x.b, y.b),
                  vmlaq_s32(sum.c, x.c, y.c), vmlaq_s32(sum.d, x.d, y.d)};
}
#define i_mla16(sum, x, y) i_mla(sum, x, y)
typedef struct {
    int16x8_t a, b, c, d;
} pairs;
FS_INLINE pairs pairs_load(const uint8_t *p)
{
    const int8x16_t low = vreinterpretq_s8_u8(vld1q_u8(p)), high = vreinterpretq_s8_u8(vld1q_u8(p + 16));
    return (pairs){vmovl_s8(vget_low_s8(low)), vmovl_high_s8(low), vmovl_s8(vget_low_s8(high)),
                   vmovl_high_s8(high)};
}
FS_INLINE int32x4_t four_of(int16x8_t a, const int second)
{
    int32x4_t four = vreinterpretq_s32_s16(a);
    return vshrq_n_s32(second ? four : vshlq_n_s32(four, 16), 16);
}
FS_INLINE i16x pairs_of(pairs a, const int second)
{
    return (i16x){four_of(a.a, second), four_of(a.b, second), four_of(a.c, second),
                  four_of(a.d, second)};
}
FS_INLINE int32x4_t four_dots(int32x4_t sum, int16x8_t a, int16x8_t two)
{
    int32x4_t first = vmull_s16(vget_low_s16(a), vget_low_s16(two));
    return vaddq_s32(sum, vpaddq_s32(first, vmull_high_s16(a, two)));
}
FS_INLINE i16x pairs_dot(i16x sum, pairs a, int32_t b)
{
    const int16x8_t two = vreinterpretq_s16_s32(vdupq_n_s32(b));
    return (i16x){four_dots(sum.a, a.a, two), four_dots(sum.b, a.b, two), four_dots(sum.c, a.c, two),
                  four_dots(sum.d, a.d, two)};
}
FS_INLINE int32x4_t i_low_four(int32x4_t x) { return vandq_s32(x, vdupq_n_s32(255)); }
FS_INLINE i16x i_low(i16x x)
{
    return (i16x){i_low_four(x.a), i_low_four(x.b), i_low_four(x.c), i_low_four(x.d)};
}
FS_INLINE i16x i_join(i16x x, i16x y, int shift)
{
    const int32x4_t by = vdupq_n_s32(shift);
    y = i_low(y);
    return (i16x){vorrq_s32(x.a, vshlq_s32(y.a, by)), vorrq_s32(x.b, vshlq_s32(y.b, by)),
                  vorrq_s32(x.c, vshlq_s32(y.c, by)), vorrq_s32(x.d, vshlq_s32(y.d, by))};
}
FS_INLINE void i_store(void *p, i16x x)
{
    int32_t *out = (int32_t *)p;
    vst1q_s32(out, x.a);
    vst1q_s32(out + 4, x.b);
    vst1q_s32(out + 8, x.c);
    vst1q_s32(out + 12, x.d);
}
#define turn_eights(rows, stride, words, y) 0 /* one by one, see kernels_body.h */
#define v_prefetch(p) __builtin_prefetch(p)
#define v_prefetch_second(p) __builtin_prefetch(p, 0, 2)

/* Q8: all dots here are signed, so a weight stored as w + 128 becomes w: its top bit is flipped. */
typedef w64 w8;
FS_INLINE w8 q8_of(w64 w)
{
    const int8x16_t offset = vdupq_n_s8(-128);
    return (w8){veorq_s8(w.a, offset), veorq_s8(w.b, offset), veorq_s8(w.c, offset),
                veorq_s8(w.d, offset)};
}
#define q8_load(p) q8_of(w_load(p))
FS_INLINE w8 q8_table(const uint8_t *table, w64 w)
{
    const int8x16_t t = veorq_s8(vreinterpretq_s8_u8(vld1q_u8(table)), vdupq_n_s8(-128));
    return (w8){vqtbl1q_s8(t, vreinterpretq_u8_s8(w.a)), vqtbl1q_s8(t, vreinterpretq_u8_s8(w.b)),
                vqtbl1q_s8(t, vreinterpretq_u8_s8(w.c)), vqtbl1q_s8(t, vreinterpretq_u8_s8(w.d))};
}
