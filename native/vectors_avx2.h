/* The virtual vector in AVX2, FMA and F16C: two registers of 8 lanes. Integer dots are left to the
 * including file: AVX2 has none of its own, AVX-VNNI has. */
#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "kernels.h"

#define FS_INLINE static inline __attribute__((always_inline))

typedef struct {
    __m256 a, b;
} v16;
typedef struct {
    __m256i a, b;
} i16x;
typedef __m256i x4;
typedef struct {
    __m256i a, b;
} w64;

#define PAIR(x, y) \
    (v16) { x, y }

FS_INLINE v16 v_set(float a) { return PAIR(_mm256_set1_ps(a), _mm256_set1_ps(a)); }
FS_INLINE v16 v_load(const float *p) { return PAIR(_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)); }
FS_INLINE void v_store(float *p, v16 x)
{
    _mm256_storeu_ps(p, x.a);
    _mm256_storeu_ps(p + 8, x.b);
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
    const __m128i *halfs = (const __m128i *)p;
    return PAIR(_mm256_cvtph_ps(_mm_loadu_si128(halfs)), _mm256_cvtph_ps(_mm_loadu_si128(halfs + 1)));
}
FS_INLINE void v_store_half(void *p, v16 x)
{
    _mm_storeu_si128((__m128i *)p, _mm256_cvtps_ph(x.a, _MM_FROUND_TO_NEAREST_INT));
    _mm_storeu_si128((__m128i *)p + 1, _mm256_cvtps_ph(x.b, _MM_FROUND_TO_NEAREST_INT));
}
FS_INLINE __m256 v_from_i8_half(const int8_t *p)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p)));
}
FS_INLINE v16 v_from_i8(const int8_t *p) { return PAIR(v_from_i8_half(p), v_from_i8_half(p + 8)); }
FS_INLINE v16 v_fma(v16 x, v16 y, v16 z)
{
    return PAIR(_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b));
}
FS_INLINE v16 v_add(v16 x, v16 y) { return PAIR(_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)); }
FS_INLINE v16 v_sub(v16 x, v16 y) { return PAIR(_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)); }
FS_INLINE v16 v_mul(v16 x, v16 y) { return PAIR(_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)); }
FS_INLINE v16 v_div(v16 x, v16 y) { return PAIR(_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)); }
FS_INLINE v16 v_max(v16 x, v16 y) { return PAIR(_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)); }
FS_INLINE v16 v_min(v16 x, v16 y) { return PAIR(_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)); }
FS_INLINE v16 v_abs(v16 x)
{
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return PAIR(_mm256_andnot_ps(sign, x.a), _mm256_andnot_ps(sign, x.b));
}
FS_INLINE v16 v_swap(v16 x) { return PAIR(_mm256_permute_ps(x.a, 0xb1), _mm256_permute_ps(x.b, 0xb1)); }
FS_INLINE v16 v_keep_n(v16 x, v16 y, int n)
{
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    __m256 a = _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_set1_epi32(n), lane));
    __m256 b = _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_set1_epi32(n - 8), lane));
    return PAIR(_mm256_blendv_ps(y.a, x.a, a), _mm256_blendv_ps(y.b, x.b, b));
}
FS_INLINE __m256 v_scale2_half(__m256 p, __m256 t)
{
    __m256i exponent = _mm256_slli_epi32(_mm256_castps_si256(t), 23);
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), exponent));
}
FS_INLINE v16 v_scale2(v16 p, v16 t)
{
    return PAIR(v_scale2_half(p.a, t.a), v_scale2_half(p.b, t.b));
}
FS_INLINE float v_sum(v16 x)
{
    __m256 a = _mm256_add_ps(x.a, x.b);
    __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}
FS_INLINE float v_hmax(v16 x)
{
    __m256 a = _mm256_max_ps(x.a, x.b);
    __m128 b = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_max_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_max_ss(b, _mm_movehdup_ps(b)));
}
FS_INLINE __m128i i16_from_ps(__m256 x)
{
    __m256i i = _mm256_cvtps_epi32(x);
    return _mm_packs_epi32(_mm256_castsi256_si128(i), _mm256_extracti128_si256(i, 1));
}
FS_INLINE int32_t v_store_i8(int8_t *p, v16 x)
{
    __m128i q = _mm_packs_epi16(i16_from_ps(x.a), i16_from_ps(x.b));
    _mm_storeu_si128((__m128i *)p, q);
    __m128i sums = _mm_sad_epu8(_mm_xor_si128(q, _mm_set1_epi8(-128)), _mm_setzero_si128());
    return _mm_cvtsi128_si32(sums) + _mm_extract_epi16(sums, 4) - 16 * 128;
}
/* the largest float below a half: with it sums round as roundf does */
FS_INLINE __m256i v_round_half(__m256 x)
{
    __m256 sign = _mm256_and_ps(x, _mm256_set1_ps(-0.0f));
    __m256 half = _mm256_or_ps(sign, _mm256_set1_ps(0.49999997f));
    return _mm256_cvttps_epi32(_mm256_add_ps(x, half));
}
FS_INLINE i16x v_round(v16 x) { return (i16x){v_round_half(x.a), v_round_half(x.b)}; }
FS_INLINE i16x v_trunc(v16 x)
{
    return (i16x){_mm256_cvttps_epi32(x.a), _mm256_cvttps_epi32(x.b)};
}
typedef __m256i h16;
FS_INLINE h16 h_least(void) { return _mm256_set1_epi16(1); }
FS_INLINE h16 h_larger(const uint8_t *halfs, h16 a)
{
    const __m256i b = _mm256_loadu_si256((const __m256i *)halfs);
    return _mm256_max_epu16(a, _mm256_and_si256(b, _mm256_set1_epi16(0x7fff)));
}
FS_INLINE v16 h_floats(h16 a)
{
    return PAIR(_mm256_cvtph_ps(_mm256_castsi256_si128(a)),
                _mm256_cvtph_ps(_mm256_extracti128_si256(a, 1)));
}
FS_INLINE void v_units_half(__m256 most, const float levels, __m256 *levels_in_one, __m256 *unit)
{
    __m256i e = _mm256_and_si256(_mm256_castps_si256(most), _mm256_set1_epi32((int)FS_EXPONENT));
    __m256i in_one = _mm256_sub_epi32(_mm256_set1_epi32((int)FS_LEVELS_IN_ONE(levels)), e);
    *levels_in_one = _mm256_castsi256_ps(in_one);
    *unit = _mm256_castsi256_ps(_mm256_add_epi32(_mm256_set1_epi32((int)FS_UNIT(levels)), e));
}
FS_INLINE void v_units(v16 most, const float levels, v16 *levels_in_one, v16 *unit)
{
    v_units_half(most.a, levels, &levels_in_one->a, &unit->a);
    v_units_half(most.b, levels, &levels_in_one->b, &unit->b);
}
FS_INLINE i16x v_nearest(v16 x)
{
    return (i16x){_mm256_cvtps_epi32(x.a), _mm256_cvtps_epi32(x.b)};
}
FS_INLINE i16x v_nearest16(v16 x, v16 y)
{
    const __m256 magic = _mm256_set1_ps(12582912.0f);
    return (i16x){_mm256_castps_si256(_mm256_fmadd_ps(x.a, y.a, magic)),
                  _mm256_castps_si256(_mm256_fmadd_ps(x.b, y.b, magic))};
}
FS_INLINE i16x i_mla(i16x sum, i16x x, i16x y)
{
    return (i16x){_mm256_add_epi32(sum.a, _mm256_mullo_epi32(x.a, y.a)),
                  _mm256_add_epi32(sum.b, _mm256_mullo_epi32(x.b, y.b))};
}
/* the upper 16 bits of x and y are their signs: they must not be multiplied as well */
FS_INLINE i16x i_mla16(i16x sum, i16x x, i16x y)
{
    const __m256i low = _mm256_set1_epi32(0xffff);
    return (i16x){_mm256_add_epi32(sum.a, _mm256_madd_epi16(x.a, _mm256_and_si256(y.a, low))),
                  _mm256_add_epi32(sum.b, _mm256_madd_epi16(x.b, _mm256_and_si256(y.b, low)))};
}
typedef i16x pairs;
FS_INLINE pairs pairs_load(const uint8_t *p)
{
    const __m128i *bytes = (const __m128i *)p;
    return (pairs){_mm256_cvtepi8_epi16(_mm_loadu_si128(bytes)),
                   _mm256_cvtepi8_epi16(_mm_loadu_si128(bytes + 1))};
}
FS_INLINE i16x pairs_of(pairs a, const int second)
{
    if (!second) a = (pairs){_mm256_slli_epi32(a.a, 16), _mm256_slli_epi32(a.b, 16)};
    return (i16x){_mm256_srai_epi32(a.a, 16), _mm256_srai_epi32(a.b, 16)};
}
FS_INLINE i16x pairs_dot(i16x sum, pairs a, int32_t b)
{
    const __m256i two = _mm256_set1_epi32(b);
    return (i16x){_mm256_add_epi32(sum.a, _mm256_madd_epi16(a.a, two)),
                  _mm256_add_epi32(sum.b, _mm256_madd_epi16(a.b, two))};
}
FS_INLINE i16x i_low(i16x x)
{
    const __m256i mask = _mm256_set1_epi32(255);
    return (i16x){_mm256_and_si256(x.a, mask), _mm256_and_si256(x.b, mask)};
}
FS_INLINE i16x i_join(i16x x, i16x y, int shift)
{
    y = i_low(y);
    return (i16x){_mm256_or_si256(x.a, _mm256_slli_epi32(y.a, shift)),
                  _mm256_or_si256(x.b, _mm256_slli_epi32(y.b, shift))};
}
FS_INLINE void i_store(void *p, i16x x)
{
    _mm256_storeu_si256((__m256i *)p, x.a);
    _mm256_storeu_si256((__m256i *)p + 1, x.b);
}
FS_INLINE v16 v_from_int(i16x x)
{
    return PAIR(_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b));
}
FS_INLINE x4 x4_load(const int8_t *p)
{
    int32_t four;
    memcpy(&four, p, 4);
    return _mm256_set1_epi32(four);
}
FS_INLINE i16x int_set(int32_t a)
{
    return (i16x){_mm256_set1_epi32(a), _mm256_set1_epi32(a)};
}
FS_INLINE w64 w_load(const uint8_t *p)
{
    return (w64){_mm256_loadu_si256((const __m256i *)p), _mm256_loadu_si256((const __m256i *)(p + 32))};
}
FS_INLINE w64 w_low(w64 w)
{
    const __m256i mask = _mm256_set1_epi8(15);
    return (w64){_mm256_and_si256(w.a, mask), _mm256_and_si256(w.b, mask)};
}
FS_INLINE w64 w_high(w64 w)
{
    w64 shifted = {_mm256_srli_epi16(w.a, 4), _mm256_srli_epi16(w.b, 4)};
    return w_low(shifted);
}
FS_INLINE __m256i w_bits_half(__m256i w, int left, int mask)
{
    w = left >= 0 ? _mm256_slli_epi16(w, left) : _mm256_srli_epi16(w, -left);
    return _mm256_and_si256(w, _mm256_set1_epi8((char)mask));
}
FS_INLINE w64 w_bits(w64 w, int left, int mask)
{
    return (w64){w_bits_half(w.a, left, mask), w_bits_half(w.b, left, mask)};
}
FS_INLINE w64 w_or(w64 a, w64 b)
{
    return (w64){_mm256_or_si256(a.a, b.a), _mm256_or_si256(a.b, b.b)};
}
FS_INLINE __m256 v_brain_half(const uint16_t *p)
{
    __m256i halfs = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(halfs, 16));
}
FS_INLINE v16 v_brain(const void *p)
{
    return PAIR(v_brain_half((const uint16_t *)p), v_brain_half((const uint16_t *)p + 8));
}
#define v_prefetch(p) _mm_prefetch((const char *)(p), _MM_HINT_T0)
#define v_prefetch_second(p) _mm_prefetch((const char *)(p), _MM_HINT_T1)
