/* AVX2, FMA and F16C (Intel Haswell, AMD Zen and later). */
#include "kernels.h"
#ifdef FS_X86
#include <immintrin.h>
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c")
#endif
#include "vectors_avx2.h"

/* Q8: maddubs saturates for bytes above 127, so the weight's sign moves to the activation:
 * |w| <= 128, |x| <= 127, and a pair of products stays below 32,767. */
typedef struct {
    w64 size, sign;
} w8;
typedef i16x q8_sum;
FS_INLINE w8 q8_of(w64 w)
{
    const __m256i offset = _mm256_set1_epi8(-128);
    w.a = _mm256_xor_si256(w.a, offset);
    w.b = _mm256_xor_si256(w.b, offset);
    return (w8){{_mm256_abs_epi8(w.a), _mm256_abs_epi8(w.b)}, w};
}
#define q8_load(p) q8_of(w_load(p))
FS_INLINE w8 q8_table(const uint8_t *table, w64 w)
{
    const __m128i t = _mm_xor_si128(_mm_loadu_si128((const __m128i *)table), _mm_set1_epi8(-128));
    w.a = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(t), w.a);
    w.b = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(t), w.b);
    return (w8){{_mm256_abs_epi8(w.a), _mm256_abs_epi8(w.b)}, w};
}
/* the same level for both numbers of 16 bits in a lane, in place of the 1 that would add them up */
#define FS_OWN_LEVELS
typedef i16x q8_level;
FS_INLINE __m256i q8_twice(__m256i level)
{
    return _mm256_blend_epi16(level, _mm256_slli_epi32(level, 16), 0xaa);
}
FS_INLINE q8_level q8_level_of(i16x level)
{
    return (q8_level){q8_twice(level.a), q8_twice(level.b)};
}
FS_INLINE __m256i q8_products(__m256i size, __m256i sign, x4 x, __m256i level)
{
    return _mm256_madd_epi16(_mm256_maddubs_epi16(size, _mm256_sign_epi8(x, sign)), level);
}
FS_INLINE q8_sum q8_add(q8_sum sum, w8 w, x4 x, q8_level level)
{
    return (q8_sum){_mm256_add_epi32(sum.a, q8_products(w.size.a, w.sign.a, x, level.a)),
                    _mm256_add_epi32(sum.b, q8_products(w.size.b, w.sign.b, x, level.b))};
}
#define q8_begin(total, shift) ((void)(shift), (total))
#define q8_end(total, sum, shift, level) (sum)

/* Q4: eight pairs of products up to 15 * 127 each fit into 16 bits: 30,480. */
typedef struct {
    __m256i a, b;
} q4_sum;
FS_INLINE q4_sum q4_dot(q4_sum sum, w64 w, x4 x)
{
    return (q4_sum){_mm256_add_epi16(sum.a, _mm256_maddubs_epi16(w.a, x)),
                    _mm256_add_epi16(sum.b, _mm256_maddubs_epi16(w.b, x))};
}
FS_INLINE i16x q4_finish(q4_sum sum, int32_t shift)
{
    const __m256i ones = _mm256_set1_epi16(1), start = _mm256_set1_epi32(shift);
    return (i16x){_mm256_add_epi32(start, _mm256_madd_epi16(sum.a, ones)),
                  _mm256_add_epi32(start, _mm256_madd_epi16(sum.b, ones))};
}
#define q4_start(shift) ((q4_sum){_mm256_setzero_si256(), _mm256_setzero_si256()})

/* K types: sums of 16 bits over as many groups of four columns as fit, 32,004 at the most (30,480 of
 * 4 bits, 31,496 of 5); then the scale in place of the 1 by which pairs are added up. */
#define FS_OWN_GROUPS
FS_INLINE int k_groups(const int KIND)
{
    return KIND == FS_Q6_K ? 2 : KIND == FS_Q4_K || KIND == FS_Q4_1 ? 8 : 4;
}
typedef q4_sum k_sum;
typedef i16x k_level;
#define k_start() q4_start(0)
#define k_dot(sum, w, x) q4_dot(sum, w, x)
#define k_low16(KIND) 1
#define k_begin(shift) k_start()
/* the shift of Q5_0 is even, half of it has 16 bits */
FS_INLINE i16x k_less(i16x total, k_level level, int32_t shift)
{
    const __m256i half = _mm256_set1_epi16((int16_t)(shift / 2));
    return (i16x){_mm256_add_epi32(total.a, _mm256_madd_epi16(level.a, half)),
                  _mm256_add_epi32(total.b, _mm256_madd_epi16(level.b, half))};
}
#define k_level_one(KIND, level) q8_level_of(level)
#define k_level_of(KIND, a, second) k_twice(a, second)
FS_INLINE k_level k_twice(pairs a, const int second)
{
    const __m256i first = _mm256_setr_epi8(0, 1, 0, 1, 4, 5, 4, 5, 8, 9, 8, 9, 12, 13, 12, 13, 0, 1, 0, 1,
                                           4, 5, 4, 5, 8, 9, 8, 9, 12, 13, 12, 13);
    const __m256i of = second ? _mm256_add_epi8(first, _mm256_set1_epi8(2)) : first;
    return (k_level){_mm256_shuffle_epi8(a.a, of), _mm256_shuffle_epi8(a.b, of)};
}
#define k_end(KIND, total, sum, level) k_add(total, sum, level)
FS_INLINE i16x k_add(i16x total, k_sum sum, k_level level)
{
    return (i16x){_mm256_add_epi32(total.a, _mm256_madd_epi16(sum.a, level.a)),
                  _mm256_add_epi32(total.b, _mm256_madd_epi16(sum.b, level.b))};
}

enum { MAX_P = 4, MAX_R = 6 };
enum { F_ONE = 4, F_PANELS = 1, F_ROWS = 6, F_FEW = 6 };
enum { Q8_ONE = 2, Q8_PANELS = 1, Q8_ROWS = 2, Q8_FEW = 2 };
enum { Q4_ONE = 2, Q4_PANELS = 1, Q4_ROWS = 3, Q4_FEW = 2 };
enum { K_ONE = 2, K_PANELS = 1, K_ROWS = 4, K6_ROWS = 4, K_FEW = 2 };
enum { A_MANY = 6, A_FEW = 3, A_BLOCKS = 1, A_WIDE = 1, A_ALONE = 4 };

#include "turn_avx2.h"

#include "kernels_body.h"

static const fs_kernels TABLE = {.name = "avx2", FS_BODY_ENTRIES};

#ifdef __clang__
#pragma clang attribute pop
#endif
fs_kernels fs_kernels_avx2(void) { return TABLE; }
#endif
