/* AVX2 with AVX-VNNI (Intel Alder Lake, AMD Zen 5 and later): dots of bytes in one instruction. */
#include "kernels.h"
#if defined(FS_X86) && defined(FS_HAVE_AVXVNNI)
#include <immintrin.h>
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c,avxvnni"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c,avxvnni")
#endif
#include "vectors_avx2.h"

FS_INLINE i16x int_dot(i16x sum, w64 w, x4 x)
{
    return (i16x){_mm256_dpbusd_avx_epi32(sum.a, w.a, x), _mm256_dpbusd_avx_epi32(sum.b, w.b, x)};
}
typedef w64 w8;
typedef i16x q8_sum;
typedef i16x q4_sum;
FS_INLINE w8 q8_table(const uint8_t *table, w64 w)
{
    const __m256i t = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)table));
    return (w64){_mm256_shuffle_epi8(t, w.a), _mm256_shuffle_epi8(t, w.b)};
}
#define q8_load(p) w_load(p)
#define q8_start(shift) int_set(shift)
#define q8_dot(sum, w, x) int_dot(sum, w, x)
#define q8_finish(sum, shift) (sum)
#define q4_start(shift) int_set(shift)
#define q4_dot(sum, w, x) int_dot(sum, w, x)
#define q4_finish(sum, shift) (sum)
#define u_dot(sum, w, x) int_dot(sum, w, x)

enum { MAX_P = 4, MAX_R = 6 };
enum { F_ONE = 4, F_PANELS = 1, F_ROWS = 6, F_FEW = 6 };
enum { Q8_ONE = 2, Q8_PANELS = 1, Q8_ROWS = 3, Q8_FEW = 2 };
enum { Q4_ONE = 2, Q4_PANELS = 1, Q4_ROWS = 2, Q4_FEW = 2 };
enum { K_ONE = 2, K_PANELS = 1, K_ROWS = 2, K6_ROWS = 2, K_FEW = 2 };
enum { A_MANY = 6, A_FEW = 3, A_BLOCKS = 1, A_WIDE = 1, A_ALONE = 4 };

#include "turn_avx2.h"

#include "kernels_body.h"

static const fs_kernels TABLE = {.name = "avx_vnni", FS_BODY_ENTRIES};

#ifdef __clang__
#pragma clang attribute pop
#endif
fs_kernels fs_kernels_avxvnni(void) { return TABLE; }
#endif
