/* NEON with ARMv8.2's dot product (Apple M1, Graviton 2, Cortex-A76 and later: a Raspberry Pi 5):
 * dots of bytes in one instruction. */
#include "kernels.h"
#if defined(FS_ARM64) && defined(FS_HAVE_DOTPROD)
#include <arm_neon.h>
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("dotprod"))), apply_to = function)
#else
#pragma GCC target("arch=armv8.2-a+dotprod")
#endif
#include "vectors_neon.h"

FS_INLINE i16x int_dot(i16x sum, w64 w, x4 x)
{
    return (i16x){vdotq_s32(sum.a, w.a, x), vdotq_s32(sum.b, w.b, x), vdotq_s32(sum.c, w.c, x),
                  vdotq_s32(sum.d, w.d, x)};
}
typedef i16x q8_sum;
typedef i16x q4_sum;
#define q8_start(shift) ((void)(shift), int_set(0))
#define q8_dot(sum, w, x) int_dot(sum, w, x)
#define q8_finish(sum, shift) (sum)
#define q4_start(shift) int_set(shift) /* w + 8 is a signed byte as well as an unsigned one */
#define q4_dot(sum, w, x) int_dot(sum, w, x)
#define q4_finish(sum, shift) (sum)
#define u_dot(sum, w, x) int_dot(sum, w, x)

/* 32 registers: what one tile adds up stays in them */
enum { MAX_P = 4, MAX_R = 6 };
enum { F_ONE = 4, F_PANELS = 1, F_ROWS = 6, F_FEW = 6 };
enum { Q8_ONE = 2, Q8_PANELS = 1, Q8_ROWS = 3, Q8_FEW = 2 };
enum { Q4_ONE = 2, Q4_PANELS = 1, Q4_ROWS = 3, Q4_FEW = 2 };
enum { K_ONE = 2, K_PANELS = 1, K_ROWS = 3, K6_ROWS = 2, K_FEW = 2 };
enum { A_MANY = 4, A_FEW = 2, A_BLOCKS = 1, A_WIDE = 1, A_ALONE = 4 };

#include "kernels_body.h"

static const fs_kernels TABLE = {.name = "neon_dotprod", FS_BODY_ENTRIES};

#ifdef __clang__
#pragma clang attribute pop
#endif
fs_kernels fs_kernels_neon_dotprod(void) { return TABLE; }
#endif
