/* The sampler's passes over a whole vocabulary: loops that the compiler vectorises, once for every
 * instruction set. Included by sampler.c alone. */
#ifndef FS_SAMPLER_PASSES_H
#define FS_SAMPLER_PASSES_H

#include <stdint.h>
#include <string.h>

#define LANES 16
#define PEAK 64 /* logits whose largest is kept, to pass over them at once: the bits of a mask */
#define RUN 512 /* elements summed in float before the sum goes on in double */

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && defined(__linux__)
#define FS_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define FS_CLONES
#endif

/* e^x for x <= 0, within 2 ulp down to -87 and 0 at most e^-87 below (Cody and Waite). */
static inline __attribute__((always_inline)) float exp_below(float x)
{
    x = x < -87.0f ? -87.0f : x;
    float n = x * 1.44269504f + 12582912.0f; /* 1.5 * 2^23 rounds to an integer */
    int32_t bits;
    memcpy(&bits, &n, 4);
    n -= 12582912.0f;
    float r = x - n * 0.693145752f; /* ln 2 in two parts */
    r = r - n * 1.42860677e-6f;
    float p = 1.38888890e-3f;
    p = p * r + 8.33333377e-3f;
    p = p * r + 4.16666679e-2f;
    p = p * r + 1.66666672e-1f;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    int32_t power = (int32_t)((uint32_t)(bits + 127) << 23);
    float scale;
    memcpy(&scale, &power, 4);
    return p * scale;
}

/* The same as a double, within an ulp or two down to -700. Not libm's: that is one call a number, and
 * its last bit depends on the machine. */
static inline __attribute__((always_inline)) double exp_finely(double x)
{
    /* 1 / k!, k = 13 to 2: what is left out is less than 5e-18 */
    static const double terms[] = {1.6059043836821613e-10, 2.08767569878681e-09,
                                   2.505210838544172e-08,  2.755731922398589e-07,
                                   2.7557319223985893e-06, 2.48015873015873e-05,
                                   1.984126984126984e-04,  1.388888888888889e-03,
                                   8.333333333333333e-03,  4.1666666666666664e-02,
                                   1.6666666666666666e-01, 0.5};
    x = x < -700.0 ? -700.0 : x;
    double n = x * 1.4426950408889634 + 6755399441055744.0; /* 1.5 * 2^52 */
    uint64_t bits;
    memcpy(&bits, &n, 8);
    n -= 6755399441055744.0;
    double r = x - n * 6.93147180369123816490e-01; /* ln 2 in two parts */
    r = r - n * 1.90821492927058770002e-10;
    double p = terms[0];
    for (int i = 1; i < 12; i++) p = p * r + terms[i];
    p = p * r + 1.0;
    p = p * r + 1.0;
    bits = (bits + 1023) << 52;
    double scale;
    memcpy(&scale, &bits, 8);
    return p * scale;
}

/* e^x of x [n], in place */
FS_CLONES static void exponentiate(double *x, int32_t n)
{
    for (int32_t i = 0; i < n; i++) x[i] = exp_finely(x[i]);
}

FS_CLONES static void exponentiate_floats(float *x, int32_t n)
{
    for (int32_t i = 0; i < n; i++) x[i] = exp_below(x[i]);
}

/* Which of x [64] reach `least`: bit i for x[i]. */
FS_CLONES static uint64_t reaching(const float *x, float least)
{
    uint8_t flag[64];
    uint64_t mask = 0, eight;
    for (int i = 0; i < 64; i++) flag[i] = x[i] >= least;
    for (int i = 0; i < 64; i += 8) { /* the lowest bits of eight bytes come to lie side by side */
        memcpy(&eight, flag + i, 8);
        mask |= (eight * 0x0102040810204080u >> 56) << i;
    }
    return mask;
}

/* Sums of e^(x - largest) over each run of RUN of x [n] -> sums [ceil(n / RUN)]. */
FS_CLONES static void sum_runs(const float *x, int32_t n, float largest, double *sums)
{
    for (int32_t start = 0; start < n; start += RUN) {
        int32_t end = start + RUN < n ? start + RUN : n, i = start;
        float lane[LANES] = {0};
        for (; i + LANES <= end; i += LANES)
            for (int k = 0; k < LANES; k++) lane[k] += exp_below(x[i + k] - largest);
        for (int k = 0; i < end; i++, k++) lane[k] += exp_below(x[i] - largest);
        double sum = 0.0;
        for (int k = 0; k < LANES; k++) sum += lane[k];
        *sums++ = sum;
    }
}

/* Largest of each run of PEAK of x [n] -> high [ceil(n / PEAK)]; 0 where an x is not finite.
 * Floats in the order of integers: those, a compiler may take the largest of in any order. */
FS_CLONES static int32_t find_peaks(const float *x, int32_t n, float *high)
{
    int32_t odd = 0;
    for (int32_t start = 0; start < n; start += PEAK) {
        int32_t key[PEAK], count = n - start < PEAK ? n - start : PEAK, most = INT32_MIN;
        memcpy(key, x + start, (size_t)count * sizeof *key);
        for (int32_t i = 0; i < count; i++) {
            odd |= (key[i] & 0x7f800000) == 0x7f800000;
            int32_t ordered = key[i] ^ ((key[i] >> 31) & 0x7fffffff);
            most = ordered > most ? ordered : most;
        }
        most ^= (most >> 31) & 0x7fffffff;
        memcpy(high++, &most, sizeof most);
    }
    return !odd;
}

static float find_largest(const float *x, int32_t n)
{
    float largest = x[0];
    for (int32_t i = 1; i < n; i++) largest = x[i] > largest ? x[i] : largest;
    return largest;
}

#endif
