/* Reading memory as fast as the machine does.
 *
 * One thread reads several places at once: one stream alone leaves the memory waiting at the end of
 * each page, where the hardware's prefetcher stops. */
#include "bandwidth.h"

#include <stddef.h>

#ifdef _OPENMP
#include <omp.h>
#endif

enum { LINE = 64, STREAMS = 4, AHEAD = 2048 /* bytes of software prefetch */ };

typedef uint64_t fs_words __attribute__((vector_size(32), aligned(LINE / 2), may_alias));

/* `lines` cache lines from p on, as STREAMS parts side by side */
static inline __attribute__((always_inline)) uint64_t read_lines(const char *p, int64_t lines)
{
    const int64_t part = lines / STREAMS * LINE;
    fs_words a = {0}, b = {0}, c = {0}, d = {0};
    for (const char *end = p + part; p < end; p += LINE) {
        const fs_words *w = (const fs_words *)p, *x = (const fs_words *)(p + part),
                       *y = (const fs_words *)(p + 2 * part), *z = (const fs_words *)(p + 3 * part);
        for (int stream = 0; stream < STREAMS; stream++)
            __builtin_prefetch(p + stream * part + AHEAD); /* past the end does no harm */
        a += w[0] + w[1];
        b += x[0] + x[1];
        c += y[0] + y[1];
        d += z[0] + z[1];
    }
    a += b + c + d;
    uint64_t sum = a[0] + a[1] + a[2] + a[3];
    p += (STREAMS - 1) * part;
    for (int64_t rest = lines % STREAMS; rest > 0; rest--, p += LINE) {
        const fs_words *w = (const fs_words *)p;
        a = w[0] + w[1];
        sum += a[0] + a[1] + a[2] + a[3];
    }
    return sum;
}

static uint64_t read_plain(const char *p, int64_t lines) { return read_lines(p, lines); }

#if defined(__x86_64__)
/* half the loads: the caches of this kind of machine are faster than SSE2 reads them */
static __attribute__((target("avx2"))) uint64_t read_avx2(const char *p, int64_t lines)
{
    return read_lines(p, lines);
}
#endif

uint64_t fs_read_memory(const void *memory, int64_t nbytes, int32_t threads, int32_t passes)
{
    const char *first = (const char *)(((uintptr_t)memory + LINE - 1) / LINE * LINE);
    const int64_t lines = (nbytes - (first - (const char *)memory)) / LINE;
    uint64_t (*read)(const char *, int64_t) = read_plain;
    uint64_t sum = 0;
    if (lines <= 0) return 0;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2")) read = read_avx2;
#endif
    (void)threads; /* without OpenMP there is one */
#pragma omp parallel num_threads(threads) reduction(+ : sum)
    {
        int64_t index = 0, count = 1;
#ifdef _OPENMP
        index = omp_get_thread_num(), count = omp_get_num_threads();
#endif
        const int64_t begin = lines * index / count, end = lines * (index + 1) / count;
        for (int32_t pass = 0; pass < passes; pass++) sum += read(first + begin * LINE, end - begin);
    }
    return sum;
}
