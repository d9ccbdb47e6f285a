/* One step: a chunk of rows through all operations of a plan, in one parallel region.
 *
 * Baseline code only: what computes is behind the function pointers of fs_kernels. Operations are
 * parted by a barrier of our own; with one row, cheap work (norm, activation, quantising) is done by
 * every thread for itself, which costs less than a barrier. */
#define _GNU_SOURCE
#include <math.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

#ifdef _OPENMP
#include <omp.h>
#endif
#if defined(__unix__) || defined(__APPLE__)
#include <sched.h>
#endif

#include "model.h"

enum { SPINS = 300 }; /* pauses before a waiting thread gives its core away */

typedef struct {
    fs_model *model;
    fs_cache *cache;
    const int32_t *tokens; /* of this chunk */
    int32_t position;      /* of its first row */
    int32_t select;        /* FS_ROWS_... of this chunk */
    float *logits;         /* of this chunk */
    char pad0[64];
    _Atomic int32_t arrived;
    char pad1[64];
    _Atomic int32_t phase;
    int32_t stop;
    char pad2[64];
} fs_run;

typedef struct {
    fs_run *run;
    int32_t index, count; /* this thread of how many */
    int32_t rows;         /* rows that go through the operations now */
} fs_worker;

static int64_t nanoseconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* ---- threads ---- */

static void relax(int spins)
{
    if (spins < SPINS) {
#if defined(FS_X86)
        __asm__ volatile("pause");
#elif defined(__aarch64__)
        __asm__ volatile("yield");
#endif
        return;
    }
#if defined(__unix__) || defined(__APPLE__)
    sched_yield();
#endif
}

static int profiled(const fs_worker *w) { return w->run->model->profile && w->index == 0; }

/* All threads of the team meet; returns whether to leave, the same to all of them. */
static int meet(const fs_worker *w)
{
    fs_run *run = w->run;
    int64_t start = profiled(w) ? nanoseconds() : 0;
    int32_t phase = atomic_load_explicit(&run->phase, memory_order_acquire);
    if (atomic_fetch_add_explicit(&run->arrived, 1, memory_order_acq_rel) == w->count - 1) {
        atomic_store_explicit(&run->arrived, 0, memory_order_relaxed);
        run->stop = atomic_load_explicit(&run->model->abort, memory_order_relaxed);
        atomic_store_explicit(&run->phase, phase + 1, memory_order_release);
    } else {
        for (int i = 0; atomic_load_explicit(&run->phase, memory_order_acquire) == phase; i++)
            relax(i);
    }
    if (start) run->model->spent[FS_WAITING] += nanoseconds() - start;
    return run->stop;
}

static int aborted(const fs_worker *w)
{
    return atomic_load_explicit(&w->run->model->abort, memory_order_relaxed) != 0;
}

/* this thread's part of [0, n) */
static void share(const fs_worker *w, int32_t n, int32_t *begin, int32_t *end)
{
    *begin = (int32_t)((int64_t)n * w->index / w->count);
    *end = (int32_t)((int64_t)n * (w->index + 1) / w->count);
}

static float *row_of(const fs_worker *w, fs_slice s, int32_t row)
{
    const fs_model *m = w->run->model;
    if (s.buffer < 0) return w->run->logits + (int64_t)row * s.width + s.start;
    return m->buffers[s.buffer].data + row * m->buffers[s.buffer].stride + s.start;
}

static int64_t stride_of(const fs_worker *w, fs_slice s)
{
    return s.buffer < 0 ? s.width : w->run->model->buffers[s.buffer].stride;
}

/* ---- operations; each leaves its threads to meet afterwards ---- */

static void embed(const fs_worker *w, const fs_op *op)
{
    int32_t row, end;
    share(w, w->rows, &row, &end);
    for (; row < end; row++)
        fs_unpack_row(&w->run->model->matrices[op->matrix], w->run->tokens[row],
                      row_of(w, op->out, row));
}

static void norm(const fs_worker *w, const fs_op *op)
{
    const fs_model *m = w->run->model;
    int32_t row, end;
    share(w, w->rows, &row, &end);
    for (; row < end; row++)
        m->kernels.rmsnorm(row_of(w, op->x, row), m->vectors[op->vector], op->x.width, op->eps,
                            row_of(w, op->out, row));
}

static void silu(const fs_worker *w, const fs_op *op)
{
    int32_t row, end;
    share(w, w->rows, &row, &end);
    for (; row < end; row++)
        w->run->model->kernels.silu_mul(row_of(w, op->x, row), row_of(w, op->y, row),
                                         op->x.width, row_of(w, op->out, row));
}

/* every head of x: [width] turned by its position */
static void turn_row(const fs_run *run, int32_t turn, int32_t head_dim, int32_t width,
                     int32_t position, float *x)
{
    const fs_turning *t = &run->model->turns[turn];
    int32_t pairs = t->rotary_dim / 2;
    const float *table = run->cache->turns[turn] + (int64_t)position * pairs * 2;
    int32_t near = t->half ? 1 : 2, far = t->half ? pairs : 1;
    for (int32_t head = 0; head < width; head += head_dim) {
        for (int32_t i = 0; i < pairs; i++) {
            float *a = x + head + i * near, *b = a + far;
            float c = table[2 * i], s = table[2 * i + 1], first = *a, second = *b;
            *a = first * c - second * s;
            *b = first * s + second * c;
        }
    }
}

static void rope(const fs_worker *w, const fs_op *op)
{
    int32_t row, end;
    share(w, w->rows, &row, &end);
    for (; row < end; row++)
        turn_row(w->run, op->rope_q, op->head_dim, op->x.width, w->run->position + row,
                 row_of(w, op->x, row));
}

static void prepare(const fs_worker *w, const fs_op *op, const fs_matrix *matrix, int32_t row,
                    const fs_prepared *into, int32_t into_row)
{
    const fs_model *m = w->run->model;
    const float *x = row_of(w, op->x, row);
    float *f = into->f + into_row * m->f_stride;
    if (op->before == FS_AFTER_NORM) {
        m->kernels.rmsnorm(x, m->vectors[op->vector], op->x.width, op->eps, f);
        x = f;
    } else if (op->before == FS_AFTER_SILU) {
        m->kernels.silu_mul(x, row_of(w, op->y, row), op->x.width, f);
        x = f;
    }
    if (matrix->kind >= FS_Q8)
        m->kernels.quantise(x, op->x.width, matrix->kind == FS_Q8 ? 128 : 8,
                             into->q + into_row * m->q_stride, into->scale + into_row * m->b_stride,
                             into->shift + into_row * m->b_stride);
}

static void matmul(const fs_worker *w, const fs_op *op)
{
    const fs_model *m = w->run->model;
    const fs_matrix *matrix = &m->matrices[op->matrix];
    const fs_prepared *from = w->rows == 1 ? &m->mine[w->index] : &m->shared;
    int direct = op->before == FS_PLAIN && matrix->kind < FS_Q8;
    if (w->rows == 1) {
        if (!direct) prepare(w, op, matrix, 0, from, 0);
    } else if (!direct) {
        int32_t row, end;
        share(w, w->rows, &row, &end);
        for (; row < end; row++) prepare(w, op, matrix, row, from, row);
        if (meet(w)) return;
    }
    fs_acts x = {.f = direct ? row_of(w, op->x, 0) : from->f,
                 .f_stride = direct ? stride_of(w, op->x) : m->f_stride,
                 .q = from->q,
                 .q_stride = m->q_stride,
                 .scale = from->scale,
                 .shift = from->shift,
                 .b_stride = m->b_stride,
                 .scratch = m->mine[w->index].scratch};
    fs_out out = {row_of(w, op->out, 0), stride_of(w, op->out), op->add};
    int32_t panel, end, poll = w->rows == 1 ? matrix->panels : 16;
    share(w, matrix->panels, &panel, &end);
    for (; panel < end && !aborted(w); panel += poll)
        m->kernels.matmul[matrix->kind](matrix, &x, &out, w->rows, panel,
                                         panel + poll < end ? panel + poll : end);
}

/* k and v of a row and a kv head into the cache */
static void append(const fs_worker *w, const fs_op *op, int32_t row, int32_t head)
{
    fs_cache *c = w->run->cache;
    const int32_t dim = op->head_dim;
    const int64_t position = w->run->position + row;
    float *k = row_of(w, op->y, row) + head * dim;
    const float *v = row_of(w, op->z, row) + head * dim;
    if (op->rope_k >= 0) turn_row(w->run, op->rope_k, dim, dim, (int32_t)position, k);
    float *keys = c->keys + op->layer * c->layer_keys + head * c->capacity * dim +
                  position / FS_LANES * FS_LANES * dim + position % FS_LANES;
    float *values = c->values + op->layer * c->layer_values +
                    (head * c->capacity + position) * c->value_width;
    for (int32_t d = 0; d < dim; d++) keys[d * FS_LANES] = k[d];
    memcpy(values, v, (size_t)dim * sizeof(float));
}

/* `queries` query heads from `head` on (step 0), or rows from `row` on of one head (step 1) */
static void attend(const fs_worker *w, const fs_op *op, int32_t row, int32_t head, int32_t queries,
                   int32_t step)
{
    const fs_model *m = w->run->model;
    const fs_cache *c = w->run->cache;
    const int32_t dim = op->head_dim, group = op->x.width / op->y.width, kv = head / group;
    fs_attend a = {.q = row_of(w, op->x, row) + head * dim,
                   .q_stride = step ? stride_of(w, op->x) : dim,
                   .keys = c->keys + op->layer * c->layer_keys + kv * c->capacity * dim,
                   .values = c->values + op->layer * c->layer_values +
                             kv * c->capacity * c->value_width,
                   .value_width = c->value_width,
                   .scores = c->scores + (int64_t)w->index * FS_QUERIES * c->capacity,
                   .score_stride = c->capacity,
                   .out = row_of(w, op->out, row) + head * dim,
                   .out_stride = step ? stride_of(w, op->out) : dim,
                   .head_dim = dim,
                   .position = w->run->position + row,
                   .step = step,
                   .scale = op->scale};
    m->kernels.attend(&a, queries);
}

/* all query heads of one kv head, for a single row */
static void attend_group(const fs_worker *w, const fs_op *op, int32_t kv)
{
    const int32_t group = op->x.width / op->y.width;
    for (int32_t i = 0; i < group; i += FS_QUERIES)
        attend(w, op, 0, kv * group + i, group - i < FS_QUERIES ? group - i : FS_QUERIES, 0);
}

static void attention(const fs_worker *w, const fs_op *op)
{
    const int32_t dim = op->head_dim, heads = op->x.width / dim, kv_heads = op->y.width / dim;
    const int32_t group = heads / kv_heads;
    int32_t i, end;
    if (w->rows == 1 && (kv_heads % w->count == 0 || kv_heads >= 2 * w->count)) {
        share(w, kv_heads, &i, &end); /* a kv head's thread needs no other */
        for (; i < end; i++) {
            append(w, op, 0, i);
            if (op->rope_q >= 0)
                turn_row(w->run, op->rope_q, dim, group * dim, w->run->position,
                         row_of(w, op->x, 0) + i * group * dim);
            attend_group(w, op, i);
        }
        return;
    }
    share(w, w->rows, &i, &end);
    for (; i < end; i++) {
        for (int32_t head = 0; head < kv_heads; head++) append(w, op, i, head);
        if (op->rope_q >= 0)
            turn_row(w->run, op->rope_q, dim, op->x.width, w->run->position + i,
                     row_of(w, op->x, i));
    }
    if (meet(w)) return;
    int32_t tiles = (w->rows + FS_QUERIES - 1) / FS_QUERIES;
    for (i = w->index; i < tiles * heads && !aborted(w); i += w->count) {
        int32_t row = i / heads * FS_QUERIES, rest = w->rows - row;
        attend(w, op, row, i % heads, rest < FS_QUERIES ? rest : FS_QUERIES, 1);
    }
}

/* returns whether anything is left to do */
static int select_rows(fs_worker *w, const fs_op *op)
{
    if (w->run->select == FS_ROWS_NONE) return 0;
    int32_t first = w->run->select == FS_ROWS_LAST ? w->rows - 1 : 0, rows = w->rows - first;
    int32_t row, end;
    share(w, rows, &row, &end);
    for (; row < end; row++)
        memcpy(row_of(w, op->out, row), row_of(w, op->x, first + row),
               (size_t)op->x.width * sizeof(float));
    w->rows = rows;
    return 1;
}

/* the operations in order, for one thread of the team */
static void run_ops(fs_worker *w)
{
    fs_model *m = w->run->model;
    int profile = profiled(w);
    for (const fs_op *op = m->ops; op < m->ops + m->n_ops; op++) {
        int64_t start = profile ? nanoseconds() : 0;
        int64_t waited = profile ? m->spent[FS_WAITING] : 0;
        switch (op->kind) {
        case FS_EMBED: embed(w, op); break;
        case FS_NORM: norm(w, op); break;
        case FS_MATMUL: matmul(w, op); break;
        case FS_ROPE: rope(w, op); break;
        case FS_ATTENTION: attention(w, op); break;
        case FS_SILU: silu(w, op); break;
        case FS_SELECT:
            if (!select_rows(w, op)) return;
            break;
        }
        if (meet(w)) return;
        if (profile)
            m->spent[op->kind] += nanoseconds() - start - (m->spent[FS_WAITING] - waited);
    }
}

/* ---- a step ---- */

/* cos and sin of positions [turned, end), in double */
static void fill_turns(const fs_model *m, fs_cache *c, int32_t end)
{
    for (; c->turned < end; c->turned++) {
        for (int32_t t = 0; t < m->n_turns; t++) {
            int32_t pairs = m->turns[t].rotary_dim / 2;
            float *table = c->turns[t] + (int64_t)c->turned * pairs * 2;
            for (int32_t i = 0; i < pairs; i++) {
                double angle = c->turned * m->turns[t].frequency[i];
                table[2 * i] = (float)cos(angle);
                table[2 * i + 1] = (float)sin(angle);
            }
        }
    }
}

static void run_team(fs_run *run, int32_t rows, int32_t threads)
{
#ifdef _OPENMP
    if (threads > 1) {
#pragma omp parallel num_threads(threads)
        {
            fs_worker worker = {run, omp_get_thread_num(), omp_get_num_threads(), rows};
            run_ops(&worker);
        }
        return;
    }
#endif
    fs_worker worker = {run, 0, 1, rows};
    run_ops(&worker);
}

static void run_chunk(fs_run *run, int32_t rows)
{
    fs_model *m = run->model;
    if (m->threads == 1 || rows > 1 || run->select == FS_ROWS_NONE) {
        run_team(run, rows, m->threads);
        return;
    }
    int32_t alone = fs_governor_alone(&m->governor);
    int64_t start = nanoseconds();
    run_team(run, 1, alone ? 1 : m->threads);
    if (!run->stop) fs_governor_tell(&m->governor, alone, (double)(nanoseconds() - start));
}

int32_t fs_step(fs_model *m, fs_cache *cache, const int32_t *tokens, int32_t n, int32_t position,
                int32_t rows, float *logits)
{
    if (n < 1 || position < 0 || (int64_t)position + n > cache->capacity) return FS_BAD_POSITION;
    for (int32_t i = 0; i < n; i++)
        if (tokens[i] < 0 || tokens[i] >= m->vocab) return FS_BAD_TOKEN;
    fill_turns(m, cache, position + n);
    fs_run run = {.model = m, .cache = cache};
    run.stop = atomic_load(&m->abort);
    for (int32_t first = 0; first < n && !run.stop; first += m->chunk) {
        int32_t count = n - first < m->chunk ? n - first : m->chunk;
        run.tokens = tokens + first;
        run.position = position + first;
        run.select = rows == FS_ROWS_LAST && first + count < n ? FS_ROWS_NONE : rows;
        run.logits = rows == FS_ROWS_ALL ? logits + (int64_t)first * m->vocab : logits;
        run_chunk(&run, count);
    }
    if (run.stop) atomic_store(&m->abort, 0);
    return run.stop ? FS_ABORTED : FS_DONE;
}

void fs_abort(fs_model *m) { atomic_store(&m->abort, 1); }

void fs_profile(fs_model *m, int32_t on)
{
    memset(m->spent, 0, sizeof m->spent);
    m->profile = on;
}

void fs_profile_read(const fs_model *m, double *seconds)
{
    for (int kind = 0; kind < FS_PROFILED; kind++) seconds[kind] = (double)m->spent[kind] * 1e-9;
}
