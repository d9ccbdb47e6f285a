/* Turning 8 x 8 numbers of 32 bits in AVX2's registers: for packing, in every set that has AVX2. */
#include <immintrin.h>
#include <stdint.h>

/* 8 rows, `stride` bytes apart -> 8 rows of y, 16 numbers apart */
static inline __attribute__((always_inline)) void turn_8x8(const char *rows, int64_t stride,
                                                           uint32_t *y)
{
    __m256 a[8], b[8];
    for (int i = 0; i < 8; i++) a[i] = _mm256_loadu_ps((const float *)(rows + i * stride));
    for (int i = 0; i < 8; i += 2) {
        b[i] = _mm256_unpacklo_ps(a[i], a[i + 1]);
        b[i + 1] = _mm256_unpackhi_ps(a[i], a[i + 1]);
    }
    for (int i = 0; i < 8; i += 4)
        for (int j = 0; j < 2; j++) {
            a[i + 2 * j] = _mm256_shuffle_ps(b[i + j], b[i + 2 + j], 0x44);
            a[i + 2 * j + 1] = _mm256_shuffle_ps(b[i + j], b[i + 2 + j], 0xee);
        }
    for (int i = 0; i < 4; i++) {
        __m256 first = _mm256_permute2f128_ps(a[i], a[i + 4], 0x20);
        __m256 second = _mm256_permute2f128_ps(a[i], a[i + 4], 0x31);
        _mm256_storeu_ps((float *)(y + i * 16), first);
        _mm256_storeu_ps((float *)(y + (i + 4) * 16), second);
    }
}

/* 16 rows of whole eights of numbers; how many numbers of each that was. A cache line of eight rows
 * is used up at once: rows a power of two apart share the places in the first cache. */
static inline __attribute__((always_inline)) int32_t turn_eights(const void *rows, int64_t stride,
                                                                 int32_t words, void *y)
{
    int32_t i = 0;
    for (; i + 8 <= words; i += 16)
        for (int half = 0; half < 2; half++) {
            const char *p = (const char *)rows + half * 8 * stride + i * 4LL;
            uint32_t *out = (uint32_t *)y + i * 16LL + half * 8;
            turn_8x8(p, stride, out);
            if (i + 16 <= words) turn_8x8(p + 32, stride, out + 8 * 16);
        }
    return words / 8 * 8;
}
