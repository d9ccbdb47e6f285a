/* Weights from a file's rows into panels of 16 (see kernels.h), and back. A panel is the unit of
 * work: threads share nothing, and beside the result only a row's block is in memory. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>

#if defined(__unix__) || defined(__APPLE__)
#include <sys/mman.h>
#endif

#include "fireside.h"

enum { PAGE = 1 << 16 }; /* the largest pages there are: 64 KiB, on some ARM systems */

void *fs_memory_new(int64_t nbytes, int32_t huge_pages)
{
    if (nbytes <= 0) nbytes = 1;
#if defined(__unix__) || defined(__APPLE__)
    const int64_t huge = 2 << 20;
    /* mmap aligns to a page only: take more, give back what lies outside whole huge pages */
    int64_t extra = huge_pages && nbytes >= huge ? huge : 0;
    int64_t size = fs_round_up(nbytes, PAGE);
    char *p = mmap(NULL, (size_t)(size + extra), PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) return NULL;
    if (extra) {
        char *aligned = (char *)fs_round_up((int64_t)(intptr_t)p, huge);
        if (aligned > p) munmap(p, (size_t)(aligned - p));
        if (aligned + size < p + size + extra)
            munmap(aligned + size, (size_t)(p + extra - aligned));
        p = aligned;
#ifdef MADV_HUGEPAGE
        madvise(p, (size_t)size, MADV_HUGEPAGE);
#endif
    }
    return p;
#else
    (void)huge_pages;
    void *p = aligned_alloc(64, (size_t)fs_round_up(nbytes, 64));
    if (p) memset(p, 0, (size_t)fs_round_up(nbytes, 64));
    return p;
#endif
}

void fs_memory_free(void *memory, int64_t nbytes)
{
    if (!memory) return;
#if defined(__unix__) || defined(__APPLE__)
    munmap(memory, (size_t)fs_round_up(nbytes > 0 ? nbytes : 1, PAGE));
#else
    (void)nbytes;
    free(memory);
#endif
}

void fs_matrix_init(fs_matrix *m, int32_t kind, int64_t rows, int64_t cols, void *data)
{
    m->kind = kind;
    m->rows = (int32_t)rows;
    m->cols = (int32_t)cols;
    m->panels = (int32_t)((rows + FS_LANES - 1) / FS_LANES);
    m->blocks = (int32_t)((cols + FS_BLOCK - 1) / FS_BLOCK);
    m->data = data;
    int64_t scales = fs_round_up((int64_t)m->blocks * FS_LANES * 2, 64);
    switch (kind) {
    case FS_F32: m->panel_bytes = cols * FS_LANES * 4; break;
    case FS_F16: m->panel_bytes = fs_round_up(cols * FS_LANES * 2, 64); break;
    case FS_Q8: m->panel_bytes = (int64_t)m->blocks * 512 + scales; break;
    default: m->panel_bytes = (int64_t)m->blocks * 256 + scales; break;
    }
}

int64_t fs_packed_nbytes(int32_t kind, int64_t rows, int64_t cols)
{
    fs_matrix m;
    fs_matrix_init(&m, kind, rows, cols, NULL);
    return m.panel_bytes * m.panels;
}

/* ---- a file's rows ---- */

typedef struct {
    fs_kernels kernels;
    int32_t from;
    int64_t cols;
    const uint8_t *data;
} fs_source;

static int64_t row_bytes(int32_t from, int64_t cols)
{
    switch (from) {
    case FS_FROM_F32: return cols * 4;
    case FS_FROM_F16: return cols * 2;
    case FS_FROM_Q8_0: return cols / FS_BLOCK * 34;
    default: return cols / FS_BLOCK * 18;
    }
}

/* columns [block * 32, +32) of a row as floats, zeros beyond the row's end */
static void read_block(const fs_source *s, int64_t row, int64_t block, float *x)
{
    const uint8_t *p = s->data + row * row_bytes(s->from, s->cols);
    int64_t column = block * FS_BLOCK, n = s->cols - column < FS_BLOCK ? s->cols - column : FS_BLOCK;
    uint16_t halfs[FS_BLOCK];
    if (n < FS_BLOCK) memset(x, 0, FS_BLOCK * sizeof(float));
    if (s->from == FS_FROM_F32) {
        memcpy(x, p + column * 4, (size_t)n * 4);
    } else if (s->from == FS_FROM_F16) {
        memcpy(halfs, p + column * 2, (size_t)n * 2);
        s->kernels.from_half(halfs, n, x);
    } else {
        p += block * (s->from == FS_FROM_Q8_0 ? 34 : 18);
        memcpy(halfs, p, 2);
        float d = fs_half_to_float(halfs[0]);
        for (int i = 0; i < FS_BLOCK; i++) {
            int q = s->from == FS_FROM_Q8_0 ? (int8_t)p[2 + i]
                    : i < 16                ? (p[2 + i] & 15) - 8
                                            : (p[2 + i - 16] >> 4) - 8;
            x[i] = (float)q * d;
        }
    }
}

/* ---- one row's block into its lane ---- */

static void put_q8(const fs_matrix *m, uint8_t *panel, int lane, int64_t block, uint16_t d,
                   const int8_t *q)
{
    uint8_t *groups = panel + block * 512 + lane * 4;
    for (int g = 0; g < 8; g++)
        for (int j = 0; j < 4; j++) groups[g * 64 + j] = (uint8_t)(q[g * 4 + j] + 128);
    memcpy(panel + (int64_t)m->blocks * 512 + (block * FS_LANES + lane) * 2, &d, 2);
}

static void put_q4(const fs_matrix *m, uint8_t *panel, int lane, int64_t block, uint16_t d,
                   const uint8_t *nibbles)
{
    uint8_t *groups = panel + block * 256 + lane * 4;
    for (int g = 0; g < 4; g++) memcpy(groups + g * 64, nibbles + g * 4, 4);
    memcpy(panel + (int64_t)m->blocks * 256 + (block * FS_LANES + lane) * 2, &d, 2);
}

static void pack_block(const fs_matrix *m, const fs_source *s, uint8_t *panel, int lane,
                       int64_t row, int64_t block)
{
    float x[FS_BLOCK];
    const uint8_t *file = s->data + row * row_bytes(s->from, s->cols);
    int64_t column = block * FS_BLOCK, n = m->cols - column < FS_BLOCK ? m->cols - column : FS_BLOCK;
    uint16_t d;
    if (m->kind == FS_F16) {
        uint16_t *halfs = (uint16_t *)panel;
        for (int64_t i = column; i < column + n; i++)
            memcpy(&halfs[i * FS_LANES + lane], file + i * 2, 2);
    } else if (m->kind == FS_Q8 && s->from == FS_FROM_Q8_0) {
        memcpy(&d, file + block * 34, 2);
        put_q8(m, panel, lane, block, d, (const int8_t *)file + block * 34 + 2);
    } else if (m->kind == FS_Q4 && s->from == FS_FROM_Q4_0) {
        memcpy(&d, file + block * 18, 2);
        put_q4(m, panel, lane, block, d, file + block * 18 + 2);
    } else {
        read_block(s, row, block, x);
        if (m->kind == FS_F32) {
            float *floats = (float *)panel + column * FS_LANES + lane;
            for (int64_t i = 0; i < n; i++) floats[i * FS_LANES] = x[i];
        } else if (m->kind == FS_Q8) {
            int8_t q[FS_BLOCK];
            d = s->kernels.quantise_q8_0(x, q);
            put_q8(m, panel, lane, block, d, q);
        } else {
            uint8_t nibbles[FS_BLOCK / 2];
            d = s->kernels.quantise_q4_0(x, nibbles);
            put_q4(m, panel, lane, block, d, nibbles);
        }
    }
}

int32_t fs_pack(int32_t isa, int32_t threads, int32_t kind, void *packed, int64_t rows,
                int64_t cols, int64_t first, int64_t count, int32_t from, const void *source)
{
    fs_matrix m;
    fs_source s = {fs_isa_kernels(isa), from, cols, source};
    int whole = cols % FS_BLOCK == 0;
    if (kind < 0 || kind >= FS_KINDS || from < FS_FROM_F32 || from > FS_FROM_Q4_0) return -1;
    if (kind == FS_F16 && from != FS_FROM_F16) return -1;
    if (from >= FS_FROM_Q8_0 && !whole) return -1;
    if (first < 0 || count < 1 || first + count > rows || cols < 1) return -1;
    fs_matrix_init(&m, kind, rows, cols, packed);
    int64_t begin = first / FS_LANES, end = (first + count + FS_LANES - 1) / FS_LANES;
    (void)threads;
#ifdef _OPENMP
#pragma omp parallel for schedule(static) num_threads(threads)
#endif
    for (int64_t p = begin; p < end; p++) {
        uint8_t *panel = m.data + p * m.panel_bytes;
        for (int64_t block = 0; block < m.blocks; block++)
            for (int lane = 0; lane < FS_LANES; lane++) {
                int64_t row = p * FS_LANES + lane - first;
                if (row >= 0 && row < count) pack_block(&m, &s, panel, lane, row, block);
            }
    }
    return 0;
}

void fs_unpack_row(const fs_matrix *m, int64_t row, float *out)
{
    const uint8_t *panel = m->data + row / FS_LANES * m->panel_bytes;
    int lane = (int)(row % FS_LANES);
    if (m->kind == FS_F32) {
        const float *floats = (const float *)panel + lane;
        for (int64_t i = 0; i < m->cols; i++) out[i] = floats[i * FS_LANES];
        return;
    }
    if (m->kind == FS_F16) {
        const uint16_t *halfs = (const uint16_t *)panel + lane;
        for (int64_t i = 0; i < m->cols; i++) out[i] = fs_half_to_float(halfs[i * FS_LANES]);
        return;
    }
    int q8 = m->kind == FS_Q8;
    int64_t size = q8 ? 512 : 256;
    const uint16_t *scales = (const uint16_t *)(panel + m->blocks * size) + lane;
    for (int64_t i = 0; i < m->cols; i++) {
        int64_t block = i / FS_BLOCK;
        int column = (int)(i % FS_BLOCK), half = !q8 && column >= 16;
        if (half) column -= 16;
        int byte = panel[block * size + column / 4 * 64 + lane * 4 + column % 4];
        int q = q8 ? byte - 128 : (half ? byte >> 4 : byte & 15) - 8;
        out[i] = (float)q * fs_half_to_float(scales[block * FS_LANES]);
    }
}

void fs_unpack(int32_t kind, const void *packed, int64_t rows, int64_t cols,
               int64_t first, int64_t count, float *out)
{
    fs_matrix m;
    fs_matrix_init(&m, kind, rows, cols, (void *)(uintptr_t)packed);
    for (int64_t i = 0; i < count; i++) fs_unpack_row(&m, first + i, out + i * cols);
}
