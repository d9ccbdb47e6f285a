/* Weights of one type of a file into another, as `fireside convert` wants them: a stretch at a time,
 * in what the second cache holds. Threads are the caller's. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "convert.h"
#include "fireside.h"
#include "formats.h"

enum { GROUP = 512, STRETCH = 64 * 1024 }; /* weights */

/* `count` weights from a stretch on, whole blocks, as floats */
static void floats_of(const fs_kernels *kernels, int from, const uint8_t *source, int64_t first,
                      int64_t count, float *x)
{
    for (int64_t i = 0; i < count; i += FS_BLOCK) {
        int64_t n = count - i < FS_BLOCK ? count - i : FS_BLOCK;
        fs_row_floats(kernels, from, source, (first + i) / FS_BLOCK, n, x + i);
    }
}

/* `count` weights at `source` into `out`; whole blocks of both types */
static void convert(const fs_kernels *kernels, int from, int to, const uint8_t *source, int64_t count,
                    uint8_t *out)
{
    _Alignas(64) float x[GROUP];
    uint8_t rest[GROUP * 4];
    for (int64_t first = 0; first < count; first += GROUP) {
        int64_t n = count - first < GROUP ? count - first : GROUP;
        const int64_t size = fs_file_nbytes(to, n);
        floats_of(kernels, from, source, first, n, x);
        memset(x + n, 0, (size_t)(GROUP - n) * sizeof(float));
        kernels->to_file(to, x, n == GROUP ? out : rest);
        if (n < GROUP) memcpy(out, rest, (size_t)size);
        out += size;
    }
}

int32_t fs_convert(int32_t isa, int32_t from, int32_t to, int64_t count, const void *source,
                   int32_t file, int64_t offset, void *out)
{
    if (from < FS_FROM_F32 || from >= FS_KINDS || to < FS_FROM_F32 || to >= FS_KINDS || count < 0)
        return FS_PACK_BAD;
    if (fs_table(to) || to == FS_FROM_Q2_K || to == FS_FROM_Q3_K) return FS_PACK_BAD; /* only read */
    if (count % fs_file_weights(from) || count % fs_file_weights(to)) return FS_PACK_BAD;
    const fs_kernels kernels = fs_isa_kernels(isa);
    uint8_t *read = source ? NULL : malloc((size_t)fs_file_nbytes(from, STRETCH));
    int32_t failed = source || read ? 0 : ENOMEM;
    for (int64_t first = 0; first < count && !failed; first += STRETCH) {
        int64_t n = count - first < STRETCH ? count - first : STRETCH;
        const int64_t size = fs_file_nbytes(from, n), start = fs_file_nbytes(from, first);
        const uint8_t *stretch = source ? (const uint8_t *)source + start : read;
        if (!source) failed = fs_read_file(file, offset + start, size, read);
        uint8_t *to_here = (uint8_t *)out + fs_file_nbytes(to, first);
        if (!failed) convert(&kernels, from, to, stretch, n, to_here);
    }
    free(read);
    return failed;
}
