/* Which instruction sets there are, and which of them this CPU has. */
#define _GNU_SOURCE
#include "fireside.h"

#ifdef FS_X86
#include <cpuid.h>
#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif

typedef struct {
    int avx2, avxvnni, avx512_vnni, amx_int8;
} fs_features;

static uint64_t fs_xcr0(void)
{
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

/* Linux gives a process the tiles' state only when asked for it (arch_prctl's XCOMP_PERM). */
static int fs_allow_tiles(void)
{
#ifdef __linux__
    return syscall(SYS_arch_prctl, 0x1023, 18) == 0;
#else
    return 0;
#endif
}

static fs_features fs_detect(void)
{
    fs_features f = {0, 0, 0, 0};
    uint32_t a, b, c, d, b7, c7, d7;
    if (!__get_cpuid(1, &a, &b, &c, &d)) return f;
    int fma = c >> 12 & 1, osxsave = c >> 27 & 1, f16c = c >> 29 & 1;
    if (!osxsave || (fs_xcr0() & 0x06) != 0x06) return f; /* the system saves ymm */
    if (!__get_cpuid_count(7, 0, &a, &b7, &c7, &d7)) return f;
    f.avx2 = fma && f16c && (b7 >> 5 & 1);
    if (!f.avx2) return f;
    if (__get_cpuid_count(7, 1, &a, &b, &c, &d)) f.avxvnni = a >> 4 & 1;
    uint32_t wanted = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31; /* avx512 f, dq, bw, vl */
    f.avx512_vnni = (fs_xcr0() & 0xe6) == 0xe6 && (b7 & wanted) == wanted && (c7 >> 11 & 1);
    int tiles = (d7 >> 24 & 1) && (d7 >> 25 & 1) && (fs_xcr0() & 0x60000) == 0x60000;
    f.amx_int8 = f.avx512_vnni && tiles && fs_allow_tiles();
    return f;
}
#endif

#if defined(FS_ARM64) && defined(FS_HAVE_DOTPROD)
#if defined(__linux__)
#include <sys/auxv.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#endif

static int fs_has_dotprod(void)
{
#if defined(__linux__)
    return (getauxval(AT_HWCAP) >> 20 & 1) != 0; /* HWCAP_ASIMDDP */
#elif defined(__APPLE__)
    int32_t has = 0;
    size_t size = sizeof has;
    return sysctlbyname("hw.optional.arm.FEAT_DotProd", &has, &size, NULL, 0) == 0 && has;
#else
    return 0;
#endif
}
#endif

typedef struct {
    const char *name;
    fs_kernels (*kernels)(void);
} fs_entry;

static const fs_entry ENTRIES[] = {
    {"reference", fs_kernels_reference},
#ifdef FS_X86
    {"avx2", fs_kernels_avx2},
#ifdef FS_HAVE_AVXVNNI
    {"avx_vnni", fs_kernels_avxvnni},
#endif
    {"avx512_vnni", fs_kernels_avx512},
#ifdef FS_HAVE_AMX
    {"amx_int8", fs_kernels_amx},
#endif
#endif
#ifdef FS_ARM64
    {"neon", fs_kernels_neon},
#ifdef FS_HAVE_DOTPROD
    {"neon_dotprod", fs_kernels_neon_dotprod},
#endif
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
#ifdef FS_HAVE_AMX
    if (ENTRIES[isa].kernels == fs_kernels_amx) return f.amx_int8;
#endif
#endif
#if defined(FS_ARM64) && defined(FS_HAVE_DOTPROD)
    if (ENTRIES[isa].kernels == fs_kernels_neon_dotprod) return fs_has_dotprod();
#endif
    return 1;
}

fs_kernels fs_isa_kernels(int32_t isa) { return ENTRIES[isa].kernels(); }

int32_t fs_has_openmp(void)
{
#ifdef _OPENMP
    return 1;
#else
    return 0;
#endif
}
