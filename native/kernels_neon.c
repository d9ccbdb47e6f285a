/* NEON as every 64-bit ARM has it (Cortex-A53 and A72, for instance: a Raspberry Pi 3 or 4). */
#include "kernels.h"
#ifdef FS_ARM64
#include "vectors_neon.h"

/* Q8: |w| <= 128, |x| <= 127, so the sum of two products fits into 16 bits: 32,512. */
typedef i16x q8_sum;
FS_INLINE q8_sum q8_dot(q8_sum sum, w8 w, x4 x)
{
    /* in this order: a Cortex-A53 waits for each result that is used at once */
    const int8x8_t y = vget_low_s8(x);
    int16x8_t a = vmull_s8(vget_low_s8(w.a), y), a2 = vmull_high_s8(w.a, x);
    int16x8_t b = vmull_s8(vget_low_s8(w.b), y), b2 = vmull_high_s8(w.b, x);
    int16x8_t c = vmull_s8(vget_low_s8(w.c), y), c2 = vmull_high_s8(w.c, x);
    int16x8_t d = vmull_s8(vget_low_s8(w.d), y), d2 = vmull_high_s8(w.d, x);
    a = vpaddq_s16(a, a2);
    b = vpaddq_s16(b, b2);
    c = vpaddq_s16(c, c2);
    d = vpaddq_s16(d, d2);
    return (q8_sum){vpadalq_s16(sum.a, a), vpadalq_s16(sum.b, b), vpadalq_s16(sum.c, c),
                    vpadalq_s16(sum.d, d)};
}
#define q8_start(shift) ((void)(shift), int_set(0))
#define q8_finish(sum, shift) (sum)

/* Q4: a block's eight products for one place among four stay in 16 bits (15 * 127 * 8 = 15,240),
 * and so does the sum of two such places. */
typedef struct {
    int16x8_t low, high; /* of rows 0, 1 and 2, 3 */
} q4_four;
typedef struct {
    q4_four a, b, c, d;
} q4_sum;
FS_INLINE q4_four q4_products(q4_four sum, int8x16_t w, x4 x)
{
    return (q4_four){vmlal_s8(sum.low, vget_low_s8(w), vget_low_s8(x)),
                     vmlal_high_s8(sum.high, w, x)};
}
FS_INLINE q4_sum q4_dot(q4_sum sum, w64 w, x4 x)
{
    return (q4_sum){q4_products(sum.a, w.a, x), q4_products(sum.b, w.b, x),
                    q4_products(sum.c, w.c, x), q4_products(sum.d, w.d, x)};
}
FS_INLINE int32x4_t q4_total(q4_four sum, int32x4_t start)
{
    return vpadalq_s16(start, vpaddq_s16(sum.low, sum.high));
}
FS_INLINE i16x q4_finish(q4_sum sum, int32_t shift)
{
    const int32x4_t start = vdupq_n_s32(shift);
    return (i16x){q4_total(sum.a, start), q4_total(sum.b, start), q4_total(sum.c, start),
                  q4_total(sum.d, start)};
}
FS_INLINE q4_sum q4_zero(void)
{
    const q4_four zero = {vdupq_n_s16(0), vdupq_n_s16(0)};
    return (q4_sum){zero, zero, zero, zero};
}
#define q4_start(shift) q4_zero()

#define u_dot(sum, w, x) q8_dot(sum, w, x)

/* 32 registers: what one tile adds up stays in them */
enum { MAX_P = 4, MAX_R = 6 };
enum { F_ONE = 4, F_PANELS = 1, F_ROWS = 6, F_FEW = 6 };
enum { Q8_ONE = 1, Q8_PANELS = 1, Q8_ROWS = 2, Q8_FEW = 2 };
enum { Q4_ONE = 2, Q4_PANELS = 1, Q4_ROWS = 2, Q4_FEW = 2 };
enum { K_ONE = 1, K_PANELS = 1, K_ROWS = 2, K6_ROWS = 1, K_FEW = 2 };
enum { A_MANY = 4, A_FEW = 2, A_BLOCKS = 1, A_WIDE = 1, A_ALONE = 4 };

#include "kernels_body.h"

static const fs_kernels TABLE = {.name = "neon", FS_BODY_ENTRIES};

fs_kernels fs_kernels_neon(void) { return TABLE; }
#endif
