/* AVX-512 with VNNI (Intel Cascade Lake, AMD Zen 4 and later): one register a virtual vector. */
#include "kernels.h"
#ifdef FS_X86
#include <immintrin.h>
#include <math.h>
#include <string.h>
#ifdef __clang__
#pragma clang attribute push( \
    __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c"))), \
    apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c")
#endif
#include "vectors_avx512.h"

/* Tried for many rows of Q8 and Q4: 1 x 8, 1 x 12, 3 x 4, 4 x 2, 4 x 3: 3% to 40% slower. */
enum { MAX_P = 4, MAX_R = 12 };
enum { F_ONE = 4, F_PANELS = 3, F_ROWS = 8, F_FEW = 12 };
enum { Q8_ONE = 4, Q8_PANELS = 2, Q8_ROWS = 6, Q8_FEW = 2 };
enum { Q4_ONE = 4, Q4_PANELS = 2, Q4_ROWS = 6, Q4_FEW = 2 };
enum { K_ONE = 4, K_PANELS = 2, K_ROWS = 6, K6_ROWS = 6, K_FEW = 2 };
enum { A_MANY = 6, A_FEW = 2, A_BLOCKS = 4, A_WIDE = 4, A_ALONE = 4 };

#include "turn_avx2.h"

#include "kernels_body.h"

static const fs_kernels TABLE = {.name = "avx512_vnni", FS_BODY_ENTRIES};

#ifdef __clang__
#pragma clang attribute pop
#endif
fs_kernels fs_kernels_avx512(void) { return TABLE; }
#endif
