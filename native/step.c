/* One step: a chunk of rows through all operations of a plan, in one parallel region.
 *
 * Rows may belong to several texts: a row knows its cache and its position, and only rope and
 * attention (attention.c) ask for them.
 *
 * Baseline code only: what computes is behind the function pointers of fs_kernels. Operations are
 * parted by a barrier of our own; with one row, cheap work (norm, activation, quantising) is done by
 * every thread for itself, which costs less than a barrier. */
#define _GNU_SOURCE
#include <stdatomic.h>
#include <string.h>

#ifdef _OPENMP
#include <omp.h>
#endif
#include "step.h"

enum { STEP = 48 }; /* panels of many rows between two looks at whether to leave */
enum { PIECE = 4 }; /* panels that a thread takes at once: what the kernels take with one row */

/* ---- operations; each leaves its threads to meet afterwards ---- */

static void prepare_row(const fs_worker *w, const fs_op *op, int32_t kind, int32_t row,
                        const fs_prepared *into, int32_t into_row)
{
    const fs_model *m = w->run->model;
    const float *x = fs_row_of(w, op->x, row);
    /* what is rounded next need not leave the first cache */
    float *f = kind < FS_Q8 ? into->f + into_row * m->f_stride : m->mine[w->index].f;
    if (op->before == FS_AFTER_NORM)
        fs_norm_row(w, op, x, f);
    else if (op->before == FS_AFTER_ACTIVATION)
        fs_activate_row(w, op, row, f);
    fs_round_row(m, kind, op->before == FS_PLAIN ? x : f, op->x.width, into, into_row, w->rows);
}

/* A matmul's input: with one row by each thread for itself, else by all of them. */
static void prepare(const fs_worker *w, const fs_op *op, int32_t kind, const fs_prepared *into)
{
    fs_model *m = w->run->model;
    const int64_t start = m->profile && w->index == 0 ? fs_nanoseconds() : 0;
    int32_t row = 0, end = 1;
    if (w->rows > 1) fs_share_rows(w, &row, &end);
    for (; row < end; row++) prepare_row(w, op, kind, row, into, row);
    if (start) m->spent[FS_PREPARING] += fs_nanoseconds() - start;
}

/* What this thread will most likely read of weights behind operation op: its part of the next matrix,
 * at the end of a step that of the first. */
static void look_ahead(const fs_worker *w, const fs_op *op, const uint8_t **begin, const uint8_t **end)
{
    const fs_model *m = w->run->model;
    *begin = *end = NULL;
    for (int32_t i = 1; i <= m->n_ops; i++) {
        if (++op == m->ops + m->n_ops) op = m->ops;
        if (op->kind == FS_EXPERTS) return;
        if (op->kind != FS_MATMUL) continue;
        const fs_matrix *matrix = &m->matrices[op->matrix];
        int32_t first, last;
        fs_share(w, matrix->panels, &first, &last);
        *begin = matrix->data + first * matrix->panel_bytes;
        *end = matrix->data + last * matrix->panel_bytes;
        return;
    }
}

/* Each thread has a part of the panels, one behind the other: a long stream for the memory, and each
 * core finds its own in its cache again. Whoever is done helps the others, since one core is often
 * slower than the other. */
static void one_row(const fs_worker *w, const fs_op *op, const fs_matrix *matrix, fs_acts *x,
                    const fs_out *out)
{
    const int32_t unit = 1 + matrix->panels / FS_MOST_PIECES;
    const uint8_t *ahead, *end;
    fs_pieces pieces;
    look_ahead(w, op, &ahead, &end);
    while (fs_take(w, (matrix->panels + unit - 1) / unit, PIECE, &pieces) && !fs_aborted(w)) {
        x->ahead = pieces.more ? NULL : ahead;
        x->ahead_end = pieces.end * unit < matrix->panels ? pieces.end * unit : matrix->panels;
        w->run->model->kernels.matmul[matrix->kind](matrix, x, out, 1, pieces.begin * unit, x->ahead_end);
    }
}

/* Shared as with one row, in whole tiles. */
static void many_rows(const fs_worker *w, const fs_op *op, const fs_matrix *matrix, fs_acts *x,
                      const fs_out *out)
{
    enum { LEAST = 2 };  /* tiles that a thread takes at once */
    fs_matmul_fn *kernel = w->run->model->kernels.matmul[matrix->kind];
    const int32_t whole = matrix->kind < FS_Q8 ? 6 : 2; /* panels of whole tiles */
    const int32_t unit = whole * (1 + matrix->panels / whole / FS_MOST_PIECES);
    const uint8_t *ahead, *ahead_end;
    fs_pieces pieces;
    look_ahead(w, op, &ahead, &ahead_end);
    while (fs_take(w, (matrix->panels + unit - 1) / unit, LEAST, &pieces)) {
        const int32_t end = pieces.end * unit < matrix->panels ? pieces.end * unit : matrix->panels;
        x->ahead = pieces.more ? NULL : ahead;
        x->ahead_end = end;
        for (int32_t panel = pieces.begin * unit; panel < end && !fs_aborted(w); panel += STEP)
            kernel(matrix, x, out, w->rows, panel, panel + STEP < end ? panel + STEP : end);
    }
}

/* All of a matrix for the rows that are this thread's alone. */
static void own_rows(const fs_worker *w, const fs_matrix *matrix, fs_acts *x, fs_out *out)
{
    fs_matmul_fn *kernel = w->run->model->kernels.matmul[matrix->kind];
    if (x->f) x->f += w->first * x->f_stride;
    x->q += w->first * x->q_stride;
    x->scale += w->first * x->b_stride;
    x->shift += w->first * x->b_stride;
    out->data += w->first * out->stride;
    for (int32_t panel = 0; panel < matrix->panels && !fs_aborted(w); panel += STEP)
        kernel(matrix, x, out, w->last - w->first, panel,
               panel + STEP < matrix->panels ? panel + STEP : matrix->panels);
}

static void matmul(const fs_worker *w, const fs_op *op)
{
    const fs_model *m = w->run->model;
    const fs_matrix *matrix = &m->matrices[op->matrix];
    const fs_prepared *from = w->rows == 1 ? &m->mine[w->index] : &m->shared;
    const int direct = op->before == FS_PLAIN && matrix->kind < FS_Q8;
    if (!direct) {
        prepare(w, op, matrix->kind, from);
        if (w->rows > 1 && !w->last && fs_meet(w)) return;
    }
    fs_acts x = {.f = direct ? fs_row_of(w, op->x, 0) : from->f,
                 .f_stride = direct ? fs_stride_of(w, op->x) : m->f_stride,
                 .q = from->q,
                 .q_stride = m->q_stride,
                 .scale = from->scale,
                 .shift = from->shift,
                 .b_stride = m->b_stride};
    fs_out out = {fs_row_of(w, op->out, 0), fs_stride_of(w, op->out), op->add,
                  op->bias < 0 ? NULL : m->vectors[op->bias]};
    if (w->rows == 1)
        one_row(w, op, matrix, &x, &out);
    else if (w->last)
        own_rows(w, matrix, &x, &out);
    else
        many_rows(w, op, matrix, &x, &out);
}

/* returns whether anything is left to do */
static int select_rows(fs_worker *w, const fs_op *op)
{
    const int32_t rows = w->run->n_selected;
    if (!rows) return 0;
    int32_t row, end;
    fs_share(w, rows, &row, &end);
    for (; row < end; row++)
        memcpy(fs_row_of(w, op->out, row), fs_row_of(w, op->x, w->run->model->selected[row]),
               (size_t)op->x.width * sizeof(float));
    w->rows = rows;
    w->first = w->last = 0;
    return 1;
}

/* what a thread reads while it waits behind op */
static void fetch_ahead(const fs_worker *w, const fs_op *op)
{
    enum { MOST = 1 << 18 }; /* bytes */
    fs_seat *mine = &w->run->model->seats[w->index];
    const uint8_t *begin, *end;
    look_ahead(w, op, &begin, &end);
    if (end - begin > MOST) end = begin + MOST;
    mine->ahead = (const char *)begin;
    mine->ahead_end = (const char *)end;
}

/* Behind the last operation, each thread of the part that it has mostly computed itself. */
static void survey(const fs_worker *w)
{
    const fs_survey *s = w->run->survey;
    int32_t begin, end;
    fs_share(w, s->runs, &begin, &end);
    fs_survey_look(s, w->run->logits, begin, end);
    if (fs_meet(w)) return;
    fs_survey_sum(s, w->run->logits, begin, end);
}

/* Whether an operation reads and writes no row but its own. */
static int keeps_to_rows(int32_t kind)
{
    return kind == FS_EMBED || kind == FS_NORM || kind == FS_MATMUL || kind == FS_ACTIVATE || kind == FS_ADD ||
           kind == FS_BIAS;
}

/* With many rows each thread has some for itself, in whole tiles: it reads all of the weights, but meets the
 * others only where attention needs their rows, and finds its own in its cache. */
static void part_rows(fs_worker *w)
{
    w->first = w->last = 0;
    if (w->count == 1 || w->rows < w->run->model->rows_apart * w->count) return;
    fs_share(w, (w->rows + FS_LANES - 1) / FS_LANES, &w->first, &w->last);
    w->first *= FS_LANES;
    w->last = w->last * FS_LANES < w->rows ? w->last * FS_LANES : w->rows;
}

/* the operations in order, for one thread of the team */
static void run_ops(fs_worker *w)
{
    fs_model *m = w->run->model;
    const int profile = m->profile && w->index == 0;
    part_rows(w);
    for (const fs_op *op = m->ops; op < m->ops + m->n_ops; op++) {
        const int64_t apart = profile ? m->spent[FS_WAITING] + m->spent[FS_PREPARING] : 0;
        const int64_t start = profile ? fs_nanoseconds() : 0;
        switch (op->kind) {
        case FS_EMBED: fs_embed(w, op); break;
        case FS_NORM: fs_norm(w, op); break;
        case FS_MATMUL: matmul(w, op); break;
        case FS_ROPE: fs_rope(w, op); break;
        case FS_ATTENTION: fs_attention(w, op); break;
        case FS_ACTIVATE: fs_activate(w, op); break;
        case FS_ADD:
        case FS_BIAS: fs_add(w, op); break;
        case FS_SCALE: fs_scale(w, op); break;
        case FS_EXPERTS: fs_experts(w, op); break;
        case FS_SELECT:
            if (!select_rows(w, op)) return;
            break;
        }
        if (!w->last || !keeps_to_rows(op->kind) || !keeps_to_rows(op[1].kind)) {
            fetch_ahead(w, op);
            if (fs_meet(w)) return;
        }
        if (profile)
            m->spent[op->kind] += fs_nanoseconds() - start -
                                  (m->spent[FS_WAITING] + m->spent[FS_PREPARING] - apart);
    }
    if (w->run->survey) survey(w);
}

/* ---- a step ---- */

static void run_team(fs_run *run, int32_t rows, int32_t threads)
{
    run->meetings = run->model->seats[0].meeting; /* those who were not in the last team missed some */
#ifdef _OPENMP
    if (threads > 1) {
#pragma omp parallel num_threads(threads)
        {
            fs_worker worker = {run, omp_get_thread_num(), omp_get_num_threads(), rows, 0, 0};
            run->model->seats[worker.index].meeting = run->meetings;
            run_ops(&worker);
        }
        return;
    }
#endif
    fs_worker worker = {run, 0, 1, rows, 0, 0};
    run_ops(&worker);
}

static void run_chunk(fs_run *run, int32_t rows)
{
    fs_model *m = run->model;
    if (m->threads == 1 || rows > 1 || run->n_selected == 0) {
        run_team(run, rows, m->threads);
        return;
    }
    int32_t alone = fs_governor_alone(&m->governor);
    int64_t start = fs_nanoseconds();
    run_team(run, 1, alone ? 1 : m->threads);
    if (!run->stop) fs_governor_tell(&m->governor, alone, (double)(fs_nanoseconds() - start));
}

static int32_t check(const fs_model *m, const fs_part *parts, int32_t n_parts)
{
    if (n_parts < 1) return FS_BAD_POSITION;
    for (const fs_part *p = parts; p < parts + n_parts; p++) {
        if (p->n < 1 || p->position < 0 || (int64_t)p->position + p->n > p->cache->capacity ||
            p->position > p->cache->held * FS_PAGE || p->position + p->n > m->places)
            return FS_BAD_POSITION;
        for (int32_t i = 0; i < p->n; i++)
            if (p->tokens[i] < 0 || p->tokens[i] >= m->vocab) return FS_BAD_TOKEN;
    }
    return FS_DONE;
}

static int reserve(fs_model *m, const fs_part *parts, int32_t n_parts)
{
    int64_t length = 0;
    for (const fs_part *p = parts; p < parts + n_parts; p++) {
        if (!fs_cache_reserve(p->cache, p->position, p->n)) return 0;
        if (p->position + p->n > length) length = p->position + p->n;
    }
    return fs_model_reserve(m, length);
}

/* Fills a chunk with rows from part *part, its row *row, on; returns how many. */
static int32_t gather(fs_run *run, const fs_part *parts, int32_t n_parts, int32_t rows,
                      int32_t *part, int32_t *row)
{
    fs_model *m = run->model;
    int32_t n = 0;
    run->n_runs = run->n_selected = 0;
    run->apart = 1;
    while (*part < n_parts && n < m->chunk) {
        const fs_part *p = &parts[*part];
        int32_t first = n;
        for (; *row < p->n && n < m->chunk; ++*row, n++) {
            m->rows[n] = (fs_row){p->cache, p->tokens[*row], p->position + *row};
            if (rows == FS_ROWS_ALL || (rows == FS_ROWS_LAST && *row == p->n - 1))
                m->selected[run->n_selected++] = n;
        }
        m->runs[run->n_runs++] = (fs_run_of_rows){first, n - first};
        if (n - first > 1) run->apart = 0;
        if (*row == p->n) ++*part, *row = 0;
    }
    return n;
}

static int32_t step(fs_model *m, const fs_part *parts, int32_t n_parts, int32_t rows, float *logits,
                    const fs_survey *survey)
{
    int32_t status = check(m, parts, n_parts), part = 0, row = 0;
    if (status != FS_DONE) return status;
    if (!reserve(m, parts, n_parts)) return FS_NO_MEMORY;
    fs_run run = {.model = m, .logits = logits, .survey = survey};
    run.stop = atomic_load(&m->abort);
    while (part < n_parts && !run.stop) {
        int32_t count = gather(&run, parts, n_parts, rows, &part, &row);
        run_chunk(&run, count);
        if (logits) run.logits += (int64_t)run.n_selected * m->vocab;
    }
    if (run.stop) atomic_store(&m->abort, 0);
    return run.stop ? FS_ABORTED : FS_DONE;
}

int32_t fs_step(fs_model *m, const fs_part *parts, int32_t n_parts, int32_t rows, float *logits)
{
    return step(m, parts, n_parts, rows, logits, NULL);
}

int32_t fs_step_surveyed(fs_model *m, const fs_part *part, float *logits, const fs_survey *survey)
{
    return step(m, part, 1, FS_ROWS_LAST, logits, survey);
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
