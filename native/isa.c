/* Which instruction sets there are, and which of them this CPU has. */
#include "fireside.h"

#ifdef FS_X86
#include <cpuid.h>

typedef struct {
    int avx2, avxvnni, avx512_vnni;
} fs_features;

static uint64_t fs_xcr0(void)
{
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

static fs_features fs_detect(void)
{
    fs_features f = {0, 0, 0};
    uint32_t a, b, c, d, b7, c7;
    if (!__get_cpuid(1, &a, &b, &c, &d)) return f;
    int fma = c >> 12 & 1, osxsave = c >> 27 & 1, f16c = c >> 29 & 1;
    if (!osxsave || (fs_xcr0() & 0x06) != 0x06) return f; /* the system saves ymm */
    if (!__get_cpuid_count(7, 0, &a, &b7, &c7, &d)) return f;
    f.avx2 = fma && f16c && (b7 >> 5 & 1);
    if (!f.avx2) return f;
    if (__get_cpuid_count(7, 1, &a, &b, &c, &d)) f.avxvnni = a >> 4 & 1;
    uint32_t wanted = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31; /* avx512 f, dq, bw, vl */
    f.avx512_vnni = (fs_xcr0() & 0xe6) == 0xe6 && (b7 & wanted) == wanted && (c7 >> 11 & 1);
    return f;
}
#endif

typedef struct {
    const char *name;
    const fs_kernels *(*kernels)(void);
} fs_entry;

static const fs_entry ENTRIES[] = {
    {"reference", fs_kernels_reference},
#ifdef FS_X86
    {"avx2", fs_kernels_avx2},
#ifdef FS_HAVE_AVXVNNI
    {"avx_vnni", fs_kernels_avxvnni},
#endif
    {"avx512_vnni", fs_kernels_avx512},
#endif
};

int32_t fs_isa_count(void) { return (int32_t)(sizeof ENTRIES / sizeof ENTRIES[0]); }

const char *fs_isa_name(int32_t isa) { return ENTRIES[isa].name; }

int32_t fs_isa_usable(int32_t isa)
{
    if (isa < 0 || isa >= fs_isa_count()) return 0;
#ifdef FS_X86
    fs_features f = fs_detect();
    if (ENTRIES[isa].kernels == fs_kernels_avx2) return f.avx2;
#ifdef FS_HAVE_AVXVNNI
    if (ENTRIES[isa].kernels == fs_kernels_avxvnni) return f.avxvnni;
#endif
    if (ENTRIES[isa].kernels == fs_kernels_avx512) return f.avx512_vnni;
#endif
    return 1;
}

const fs_kernels *fs_isa_kernels(int32_t isa) { return ENTRIES[isa].kernels(); }

int32_t fs_has_openmp(void)
{
#ifdef _OPENMP
    return 1;
#else
    return 0;
#endif
}
