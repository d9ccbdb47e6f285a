/* Weights from a file's rows into panels of 16 (see kernels.h), and back. Threads take some panels at
 * a time and share nothing; beside the result only what they have just read is in memory. Files are
 * read, not mapped: what somebody cuts short ends in an error, not in a signal. */
#define _GNU_SOURCE
#define _FILE_OFFSET_BITS 64
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#if defined(__unix__) || defined(__APPLE__)
#include <sys/mman.h>
#include <unistd.h>
#endif

#include "fireside.h"
#include "formats.h"

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
        char *aligned = (char *)(intptr_t)fs_round_up((int64_t)(intptr_t)p, huge);
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
    if (kind < FS_Q8) {
        m->panel_bytes = fs_round_up(cols * FS_LANES * (kind == FS_F32 ? 4 : 2), 64);
        return;
    }
    int64_t scales = fs_is_super(kind) ? m->blocks / FS_SUPER : m->blocks;
    m->panel_bytes = m->blocks * fs_block_bytes(kind) + fs_round_up(scales * fs_scale_bytes(kind), 64);
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
    fs_matrix matrix;
    int32_t from;
    int64_t row_bytes;
    int64_t first, count;  /* rows of the matrix that the source has */
    int64_t begin, end, step; /* its panels, and how many are read at a time */
    const uint8_t *memory; /* the source, or NULL: the file at `offset` */
    int32_t file;
    int64_t offset;
} fs_packing;

/* A thread's own: rows as they are read, and a panel that is only partly the source's. */
typedef struct {
    uint8_t *rows, *panel;
} fs_buffers;

enum { READ_BYTES = 256 << 10 }; /* read at a time: what the second cache holds beside the rest */

int32_t fs_read_file(int32_t file, int64_t offset, int64_t size, uint8_t *out)
{
#if defined(__unix__) || defined(__APPLE__)
    while (size > 0) {
        ssize_t got = pread(file, out, (size_t)size, (off_t)offset);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return errno;
        if (got == 0) return FS_PACK_SHORT;
        offset += got, out += got, size -= got;
    }
    return 0;
#else
    (void)file, (void)offset, (void)size, (void)out;
    return ENOSYS;
#endif
}

/* ---- 16 rows into a panel ---- */

/* a block of 16 rows as floats, lane = row: x [32][16], zeros beyond the rows' end */
static void block_floats(const fs_packing *s, const uint8_t *rows, int64_t block, float *x)
{
    int64_t n = s->matrix.cols - block * FS_BLOCK;
    _Alignas(64) float flat[FS_LANES][FS_BLOCK];
    if (n > FS_BLOCK) n = FS_BLOCK;
    if (s->from == FS_FROM_F32 && n == FS_BLOCK) {
        s->kernels.turn(rows + block * FS_BLOCK * 4, s->row_bytes, FS_BLOCK, x);
        return;
    }
    if (n < FS_BLOCK) memset(flat, 0, sizeof flat);
    for (int lane = 0; lane < FS_LANES; lane++)
        fs_row_floats(&s->kernels, s->from, rows + lane * s->row_bytes, block, n, flat[lane]);
    s->kernels.turn(flat, sizeof flat[0], FS_BLOCK, x);
}

static void pack_f32(const fs_packing *s, const uint8_t *rows, uint8_t *panel)
{
    int64_t cols = s->matrix.cols;
    float *out = (float *)panel;
    _Alignas(64) float x[FS_BLOCK * FS_LANES];
    if (s->from == FS_FROM_F32) {
        s->kernels.turn(rows, s->row_bytes, (int32_t)cols, out);
        return;
    }
    for (int64_t column = 0; column < cols; column += FS_BLOCK) {
        int64_t n = cols - column < FS_BLOCK ? cols - column : FS_BLOCK;
        block_floats(s, rows, column / FS_BLOCK, x);
        memcpy(out + column * FS_LANES, x, (size_t)(n * FS_LANES) * sizeof(float));
    }
}

/* two columns of halfs are turned as one word; F16 is made of other types too */
static void pack_halfs(const fs_packing *s, const uint8_t *rows, uint8_t *panel)
{
    int64_t cols = s->matrix.cols;
    uint16_t *out = (uint16_t *)panel;
    _Alignas(64) uint32_t pairs[16 * FS_LANES];
    if (s->from != s->matrix.kind) {
        _Alignas(64) float x[FS_BLOCK * FS_LANES];
        for (int64_t column = 0; column < cols; column += FS_BLOCK) {
            int64_t n = cols - column < FS_BLOCK ? cols - column : FS_BLOCK;
            block_floats(s, rows, column / FS_BLOCK, x);
            s->kernels.to_half(x, (int32_t)(n * FS_LANES), out + column * FS_LANES);
        }
        return;
    }
    for (int64_t column = 0; column + 1 < cols; column += 32) {
        int32_t words = (int32_t)(cols - column < 32 ? (cols - column) / 2 : 16);
        s->kernels.turn(rows + column * 2, s->row_bytes, words, pairs);
        for (int32_t i = 0; i < words; i++, out += 2 * FS_LANES)
            for (int lane = 0; lane < FS_LANES; lane++) {
                out[lane] = (uint16_t)pairs[i * FS_LANES + lane];
                out[FS_LANES + lane] = (uint16_t)(pairs[i * FS_LANES + lane] >> 16);
            }
    }
    if (cols % 2)
        for (int lane = 0; lane < FS_LANES; lane++)
            memcpy(out + lane, rows + lane * s->row_bytes + (cols - 1) * 2, 2);
}

/* the kinds of kernels_k.h, from the type of their name */
static void pack_numbers(const fs_packing *s, const uint8_t *rows, uint8_t *panel)
{
    const int kind = s->matrix.kind, low = fs_low_bits(kind);
    const int64_t size = fs_block_bytes(kind);
    uint8_t *scales = panel + s->matrix.blocks * size;
    uint8_t numbers[FS_LANES][FS_BLOCK];
    _Alignas(64) uint8_t groups[8][64];
    for (int64_t block = 0; block < s->matrix.blocks; block++, panel += size) {
        for (int lane = 0; lane < FS_LANES; lane++) {
            const uint8_t *row = rows + lane * s->row_bytes;
            fs_file_numbers(s->from, row, block, numbers[lane]);
            fs_file_scales(s->from, row, block, lane, scales);
        }
        s->kernels.turn(numbers, FS_BLOCK, 8, groups);
        for (int g = 0; g < 4; g++)
            for (int i = 0; i < 64 && low == 4; i++)
                panel[g * 64 + i] = (uint8_t)((groups[g][i] & 15) | groups[g + 4][i] << 4);
        if (low == 2) {
            memset(panel, 0, 128);
            for (int g = 0; g < 8; g++)
                for (int i = 0; i < 64; i++)
                    panel[g / 4 * 64 + i] |= (uint8_t)((groups[g][i] & 3) << g % 4 * 2);
        }
        if (fs_high_bits(kind) == 1) {
            uint8_t *high = panel + 64 * low;
            memset(high, 0, 64);
            for (int g = 0; g < 8; g++)
                for (int i = 0; i < 64; i++) high[i] |= (uint8_t)(groups[g][i] >> low << g);
        } else if (fs_high_bits(kind) == 2) {
            memset(panel + 256, 0, 128);
            for (int g = 0; g < 8; g++)
                for (int i = 0; i < 64; i++)
                    panel[256 + g / 4 * 64 + i] |= (uint8_t)(groups[g][i] >> 4 << g % 4 * 2);
        }
    }
}

/* Q8 and Q4: blocks as the file has them, or quantised from floats */
static void pack_blocks(const fs_packing *s, const uint8_t *rows, uint8_t *panel)
{
    const int q8 = s->matrix.kind == FS_Q8;
    const int copied = s->from == (q8 ? FS_FROM_Q8_0 : FS_FROM_Q4_0);
    const int64_t size = q8 ? 512 : 256, file_size = q8 ? 34 : 18;
    uint16_t *scales = (uint16_t *)(panel + s->matrix.blocks * size);
    _Alignas(64) float x[FS_BLOCK * FS_LANES];
    for (int64_t block = 0; block < s->matrix.blocks; block++, panel += size, scales += FS_LANES) {
        if (!copied) {
            block_floats(s, rows, block, x);
            (q8 ? s->kernels.quantise_q8_0 : s->kernels.quantise_q4_0)(x, panel, scales);
            continue;
        }
        const uint8_t *blocks = rows + block * file_size;
        s->kernels.turn(blocks + 2, s->row_bytes, q8 ? 8 : 4, panel);
        for (int lane = 0; lane < FS_LANES; lane++)
            memcpy(scales + lane, blocks + lane * s->row_bytes, 2);
        if (q8)
            for (int i = 0; i < 512; i++) panel[i] ^= 128; /* q + 128 */
    }
}

static void pack_rows(const fs_packing *s, const uint8_t *rows, uint8_t *panel)
{
    switch (s->matrix.kind) {
    case FS_F32: pack_f32(s, rows, panel); break;
    case FS_F16:
    case FS_BF16: pack_halfs(s, rows, panel); break;
    case FS_Q8:
    case FS_Q4: pack_blocks(s, rows, panel); break;
    default: pack_numbers(s, rows, panel); break;
    }
}

/* lanes [begin, end) of `count` sixteens of numbers of `size` bytes, at `at` in two panels; returns
 * where they end */
static int64_t merge(int64_t at, int64_t count, int size, int begin, int end, const uint8_t *from,
                     uint8_t *to)
{
    for (; count; count--, at += FS_LANES * size)
        memcpy(to + at + begin * size, from + at + begin * size, (size_t)((end - begin) * size));
    return at;
}

/* lanes [begin, end) of a panel from another one */
static void merge_lanes(const fs_matrix *m, int begin, int end, const uint8_t *from, uint8_t *to)
{
    if (m->kind < FS_Q8) {
        merge(0, m->cols, m->kind == FS_F32 ? 4 : 2, begin, end, from, to);
        return;
    }
    int64_t at = merge(0, m->blocks * fs_block_bytes(m->kind) / 64, 4, begin, end, from, to);
    const int64_t scales = fs_scale_bytes(m->kind), halfs = fs_has_minima(m->kind) ? 2 : 1;
    if (!fs_is_super(m->kind)) {
        merge(at, m->blocks * scales / 32, 2, begin, end, from, to);
        return;
    }
    for (int64_t i = 0; i < m->blocks / FS_SUPER; i++) {
        at = merge(at, halfs, 2, begin, end, from, to);
        at = merge(at, scales / FS_LANES / 2 - halfs, 2, begin, end, from, to);
    }
}

/* Panel `p` from rows [row, row + n) of the source, all that it has of it. */
static void pack_panel(const fs_packing *s, int64_t p, const uint8_t *rows, int64_t row, int64_t n,
                       uint8_t *spare)
{
    const fs_matrix *m = &s->matrix;
    uint8_t *panel = m->data + p * m->panel_bytes;
    if (n == FS_LANES) {
        pack_rows(s, rows, panel);
        return;
    }
    int begin = (int)(s->first + row - p * FS_LANES);
    uint8_t *sixteen = spare + m->panel_bytes;
    memset(sixteen, 0, (size_t)(FS_LANES * s->row_bytes));
    memcpy(sixteen + begin * s->row_bytes, rows, (size_t)(n * s->row_bytes));
    pack_rows(s, sixteen, spare);
    merge_lanes(m, begin, begin + (int)n, spare, panel);
}

/* Panels [begin, end): read as one piece, then packed. 0, FS_PACK_SHORT or errno. */
static int32_t pack_piece(const fs_packing *s, int64_t begin, int64_t end, fs_buffers *b)
{
    int64_t row = begin * FS_LANES - s->first, last = end * FS_LANES - s->first;
    if (row < 0) row = 0;
    if (last > s->count) last = s->count;
    const uint8_t *rows = s->memory ? s->memory + row * s->row_bytes : b->rows;
    if (!s->memory) {
        int32_t failed = fs_read_file(s->file, s->offset + row * s->row_bytes,
                                   (last - row) * s->row_bytes, b->rows);
        if (failed) return failed;
    }
    for (int64_t p = begin; p < end; p++) {
        int64_t stop = (p + 1) * FS_LANES - s->first, n = (stop < last ? stop : last) - row;
        pack_panel(s, p, rows, row, n, b->panel);
        row += n, rows += n * s->row_bytes;
    }
    return 0;
}

/* What a job is made of; FS_PACK_BAD where it does not go together. */
static int32_t packing_of(int32_t isa, const fs_pack_job *job, fs_packing *s)
{
    const int32_t kind = job->kind, from = job->from;
    if (kind < 0 || kind >= FS_KINDS || from < FS_FROM_F32 || from >= FS_KINDS) return FS_PACK_BAD;
    const int any = kind == FS_F32 || kind == FS_F16 || kind == FS_Q8 || kind == FS_Q4;
    if (from != kind && !any) return FS_PACK_BAD;
    if (job->cols < 1 || job->cols % fs_file_weights(from)) return FS_PACK_BAD;
    if (job->first < 0 || job->count < 1 || job->first + job->count > job->rows) return FS_PACK_BAD;
    *s = (fs_packing){.kernels = fs_isa_kernels(isa), .from = from, .first = job->first,
                      .count = job->count, .memory = job->source, .file = job->file,
                      .offset = job->offset};
    fs_matrix_init(&s->matrix, kind, job->rows, job->cols, job->packed);
    s->row_bytes = fs_file_nbytes(from, job->cols);
    const int64_t panel = FS_LANES * s->row_bytes;
    s->step = READ_BYTES / panel > 1 ? READ_BYTES / panel : 1;
    s->begin = s->first / FS_LANES;
    s->end = (s->first + s->count + FS_LANES - 1) / FS_LANES;
    return 0;
}

/* Each thread takes a piece at a time, of whatever job. 0, FS_PACK_SHORT or errno. */
static int32_t pack_jobs(const fs_packing *s, int32_t count, int32_t threads, int32_t *failed)
{
    int64_t pieces = 0, rows = 1, panel = 1;
    for (int32_t i = 0; i < count; i++) {
        const int64_t own = s[i].step * FS_LANES * s[i].row_bytes;
        const int64_t spare = s[i].matrix.panel_bytes + FS_LANES * s[i].row_bytes;
        pieces += (s[i].end - s[i].begin + s[i].step - 1) / s[i].step;
        if (!s[i].memory && own > rows) rows = own;
        if (spare > panel) panel = spare;
    }
    int32_t status = 0;
    (void)threads;
#ifdef _OPENMP
#pragma omp parallel num_threads(threads)
#endif
    {
        fs_buffers b = {malloc((size_t)rows), malloc((size_t)panel)};
        int32_t mine = b.panel && b.rows ? 0 : ENOMEM, job = 0;
        int64_t before = 0; /* pieces of the jobs before this one; a thread's come in rising order */
#ifdef _OPENMP
#pragma omp for schedule(monotonic : dynamic)
#endif
        for (int64_t i = 0; i < pieces; i++) {
            int64_t own = (s[job].end - s[job].begin + s[job].step - 1) / s[job].step;
            while (!mine && i >= before + own) {
                before += own, job++;
                own = (s[job].end - s[job].begin + s[job].step - 1) / s[job].step;
            }
            if (mine) continue;
            const int64_t p = s[job].begin + (i - before) * s[job].step, stop = p + s[job].step;
            mine = pack_piece(&s[job], p, stop < s[job].end ? stop : s[job].end, &b);
        }
        if (mine)
#ifdef _OPENMP
#pragma omp critical
#endif
            status = mine, *failed = job;
        free(b.rows);
        free(b.panel);
    }
    return status;
}

int32_t fs_pack_all(int32_t isa, int32_t threads, const fs_pack_job *jobs, int32_t count,
                    int32_t *failed)
{
    *failed = 0;
    fs_packing *s = malloc((size_t)(count > 0 ? count : 1) * sizeof *s);
    if (!s) return ENOMEM;
    int32_t status = 0;
    for (int32_t i = 0; i < count && !status; i++)
        if ((status = packing_of(isa, jobs + i, s + i))) *failed = i;
    if (!status) status = pack_jobs(s, count, threads, failed);
    free(s);
    return status;
}

int32_t fs_pack(int32_t isa, int32_t threads, int32_t kind, void *packed, int64_t rows,
                int64_t cols, int64_t first, int64_t count, int32_t from, const void *source,
                int32_t file, int64_t offset)
{
    const fs_pack_job job = {.kind = kind, .from = from, .file = file, .packed = packed,
                             .rows = rows, .cols = cols, .first = first, .count = count,
                             .source = source, .offset = offset};
    int32_t failed;
    return fs_pack_all(isa, threads, &job, 1, &failed);
}

/* a row of a panel of the kinds of kernels_k.h */
static void unpack_numbers(const fs_matrix *m, const uint8_t *panel, int lane, float *out)
{
    const int kind = m->kind, low = fs_low_bits(kind), bits = fs_high_bits(kind);
    const int64_t size = fs_block_bytes(kind);
    const uint8_t *scales = panel + m->blocks * size;
    for (int64_t block = 0; block < m->blocks; block++, panel += size, out += FS_BLOCK)
        for (int i = 0; i < FS_BLOCK; i++) {
            const int byte = lane * 4 + i % 4, g = i / 4;
            int u = panel[(low == 4 ? g % 4 : g / 4) * 64 + byte];
            u = low == 2 ? u >> g % 4 * 2 & 3 : g < 4 ? u & 15 : u >> 4;
            if (bits == 1) u |= (panel[64 * low + byte] >> g & 1) << low;
            if (bits == 2) u |= (panel[256 + g / 4 * 64 + byte] >> g % 4 * 2 & 3) << 4;
            out[i] = fs_packed_weight(kind, scales, block, lane, i, u);
        }
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
    if (m->kind == FS_BF16) {
        const uint16_t *halfs = (const uint16_t *)panel + lane;
        for (int64_t i = 0; i < m->cols; i++) {
            uint32_t bits = (uint32_t)halfs[i * FS_LANES] << 16;
            memcpy(out + i, &bits, 4);
        }
        return;
    }
    if (m->kind > FS_Q4) {
        unpack_numbers(m, panel, lane, out);
        return;
    }
    const int q8 = m->kind == FS_Q8;
    const int64_t size = q8 ? 512 : 256;
    const uint16_t *scales = (const uint16_t *)(panel + m->blocks * size) + lane;
    for (int64_t left = m->cols; left > 0; left -= FS_BLOCK, out += FS_BLOCK, panel += size, scales += FS_LANES) {
        const float scale = fs_half_to_float(*scales);
        float weights[FS_BLOCK];
        for (int g = 0; g < 8; g++) {
            const uint8_t *four = panel + (q8 ? g : g % 4) * 64 + lane * 4;
            for (int i = 0; i < 4; i++) {
                const int number = q8 ? four[i] - 128 : (g < 4 ? four[i] & 15 : four[i] >> 4) - 8;
                weights[g * 4 + i] = (float)number * scale;
            }
        }
        memcpy(out, weights, sizeof(float) * (size_t)(left < FS_BLOCK ? left : FS_BLOCK));
    }
}

void fs_unpack(int32_t kind, const void *packed, int64_t rows, int64_t cols,
               int64_t first, int64_t count, float *out)
{
    fs_matrix m;
    fs_matrix_init(&m, kind, rows, cols, (void *)(uintptr_t)packed);
    for (int64_t i = 0; i < count; i++) fs_unpack_row(&m, first + i, out + i * cols);
}
