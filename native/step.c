/* One step: a chunk of rows through all operations of a plan, in one parallel region.
 *
 * Rows may belong to several texts: a row knows its cache and its position, and only rope and
 * attention ask for them.
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


enum { PIECE = 4 }; /* panels that a thread takes at once: what the kernels take with one row */

static int64_t stride_of(const fs_worker *w, fs_slice s)
{
    return s.buffer < 0 ? s.width : w->run->model->buffers[s.buffer].stride;
}

/* ---- operations; each leaves its threads to meet afterwards ---- */

/* every head of x: [width] turned by its position */
static void turn_row(const fs_run *run, int32_t turn, int32_t head_dim, int32_t width,
                     int32_t position, float *x)
{
    const fs_model *m = run->model;
    const fs_turning *t = &m->turns[turn];
    const float *table = t->table + (int64_t)position * t->rotary_dim * 2;
    for (int32_t head = 0; head < width; head += head_dim)
        m->kernels.rotate(x + head, table, t->rotary_dim, t->half);
}

static void rope(const fs_worker *w, const fs_op *op)
{
    int32_t row, end;
    fs_share(w, w->rows, &row, &end);
    for (; row < end; row++)
        turn_row(w->run, op->rope_q, op->head_dim, op->x.width, w->run->model->rows[row].position,
                 fs_row_of(w, op->x, row));
}

static void prepare(const fs_worker *w, const fs_op *op, const fs_matrix *matrix, int32_t row,
                    const fs_prepared *into, int32_t into_row)
{
    const fs_model *m = w->run->model;
    const float *x = fs_row_of(w, op->x, row);
    float *f = into->f + into_row * m->f_stride;
    if (op->before != FS_PLAIN) {
        if (op->before == FS_AFTER_NORM)
            fs_norm_row(w, op, x, f);
        else
            fs_activate_row(w, op, row, f);
        x = f;
    }
    fs_round_row(m, matrix->kind, x, op->x.width, into, into_row, w->rows);
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
    enum { STEP = 48 };  /* panels between two looks at whether to leave */
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
        fs_share(w, w->rows, &row, &end);
        for (; row < end; row++) prepare(w, op, matrix, row, from, row);
        if (fs_meet(w)) return;
    }
    fs_acts x = {.f = direct ? fs_row_of(w, op->x, 0) : from->f,
                 .f_stride = direct ? stride_of(w, op->x) : m->f_stride,
                 .q = from->q,
                 .q_stride = m->q_stride,
                 .scale = from->scale,
                 .shift = from->shift,
                 .b_stride = m->b_stride};
    fs_out out = {fs_row_of(w, op->out, 0), stride_of(w, op->out), op->add,
                  op->bias < 0 ? NULL : m->vectors[op->bias]};
    if (w->rows == 1)
        one_row(w, op, matrix, &x, &out);
    else
        many_rows(w, op, matrix, &x, &out);
}

/* x: [head_dim] into numbers `step` apart, those of a kind with scales scale_step apart */
static void store_head(const fs_worker *w, const float *x, char *numbers, int32_t step,
                       char *scales, int32_t scale_step)
{
    const fs_model *m = w->run->model;
    const int32_t dim = m->layout.head_dim, groups = m->layout.groups;
    const fs_prepared *mine = &m->mine[w->index];
    if (m->layout.kind == FS_KV_F32) {
        for (int32_t d = 0; d < dim; d++) ((float *)numbers)[d * step] = x[d];
    } else if (m->layout.kind == FS_KV_F16) {
        uint16_t *halfs = step == 1 ? (uint16_t *)numbers : (uint16_t *)mine->f;
        m->kernels.to_half(x, dim, halfs);
        for (int32_t d = 0; step > 1 && d < dim; d++) ((uint16_t *)numbers)[d * step] = halfs[d];
    } else {
        m->kernels.quantise(x, dim, 0, mine->q, mine->scale, mine->shift);
        for (int32_t d = 0; d < dim; d++) numbers[d * step] = (char)mine->q[d];
        for (int32_t g = 0; g < groups; g++) ((float *)scales)[g * scale_step] = mine->scale[g];
    }
}

/* Bytes of a number of the cache. */
static int64_t number_nbytes(const fs_layout *l)
{
    return l->kind == FS_KV_F32 ? 4 : l->kind == FS_KV_F16 ? 2 : 1;
}

/* where keys of a row and a kv head lie in the cache; behind them the values */
static char *keys_of(const fs_model *m, const fs_op *op, int32_t row, int32_t head)
{
    const fs_layout *l = &m->layout;
    return m->rows[row].cache->pages[m->rows[row].position / FS_PAGE] +
           ((int64_t)op->layer * l->n_kv_heads + head) * l->head_nbytes;
}

/* normalises and turns a row's k of a kv head */
static float *ready_key(const fs_worker *w, const fs_op *op, int32_t row, int32_t head)
{
    const fs_model *m = w->run->model;
    const int32_t dim = op->head_dim;
    float *k = fs_row_of(w, op->y, row) + (int64_t)head * dim;
    if (op->norm_k >= 0) m->kernels.rmsnorm(k, m->vectors[op->norm_k], dim, op->eps, k);
    if (op->rope_k >= 0) turn_row(w->run, op->rope_k, dim, dim, m->rows[row].position, k);
    return k;
}

static void append_value(const fs_worker *w, const fs_op *op, int32_t row, int32_t head)
{
    const fs_model *m = w->run->model;
    const fs_layout *l = &m->layout;
    const int64_t at = m->rows[row].position % FS_PAGE, size = number_nbytes(l);
    char *values = keys_of(m, op, row, head) + l->values;
    store_head(w, fs_row_of(w, op->z, row) + (int64_t)head * l->head_dim, values + at * l->value_width * size,
               1, values + FS_PAGE * l->value_width + at * l->groups * 4, 1);
}

/* k and v of a row and a kv head into the cache */
static void append(const fs_worker *w, const fs_op *op, int32_t row, int32_t head)
{
    const fs_model *m = w->run->model;
    const fs_layout *l = &m->layout;
    const int64_t dim = l->head_dim, at = m->rows[row].position % FS_PAGE;
    const int64_t block = at / FS_LANES, lane = at % FS_LANES;
    char *keys = keys_of(m, op, row, head);
    store_head(w, ready_key(w, op, row, head), keys + (block * dim * FS_LANES + lane) * number_nbytes(l),
               FS_LANES, keys + FS_PAGE * dim + (block * l->groups * FS_LANES + lane) * 4, FS_LANES);
    append_value(w, op, row, head);
}

/* The same for FS_LANES rows that are a whole block of positions of a text: keys turn in registers. */
static void append_block(const fs_worker *w, const fs_op *op, int32_t row, int32_t head)
{
    const fs_model *m = w->run->model;
    const fs_layout *l = &m->layout;
    const int32_t dim = l->head_dim;
    const int64_t at = m->rows[row].position % FS_PAGE;
    char *keys = keys_of(m, op, row, head) + at * dim * number_nbytes(l);
    float *turned = l->kind == FS_KV_F32 ? (float *)keys : m->attending[w->index].page;
    for (int32_t i = 0; i < FS_LANES; i++) {
        ready_key(w, op, row + i, head);
        append_value(w, op, row + i, head);
    }
    m->kernels.turn(fs_row_of(w, op->y, row) + (int64_t)head * dim, stride_of(w, op->y) * 4, dim, turned);
    if (l->kind == FS_KV_F16) m->kernels.to_half(turned, dim * FS_LANES, (uint16_t *)keys);
}

/* whether rows from `row` on, below `end`, are such a block (of blocks with scales there are none) */
static int is_block(const fs_model *m, int32_t row, int32_t end)
{
    const fs_row *first = &m->rows[row], *last = first + FS_LANES - 1;
    return m->layout.kind != FS_KV_Q8 && row + FS_LANES <= end && first->position % FS_LANES == 0 &&
           last->cache == first->cache && last->position == first->position + FS_LANES - 1;
}

/* normalises and turns heads [first, first + count) of a row's queries */
static void ready_queries(const fs_worker *w, const fs_op *op, int32_t row, int32_t first, int32_t count)
{
    const fs_model *m = w->run->model;
    const int32_t dim = op->head_dim;
    float *q = fs_row_of(w, op->x, row) + (int64_t)first * dim;
    if (op->norm_q >= 0)
        for (int32_t i = 0; i < count; i++)
            m->kernels.rmsnorm(q + (int64_t)i * dim, m->vectors[op->norm_q], dim, op->eps, q + (int64_t)i * dim);
    if (op->rope_q >= 0) turn_row(w->run, op->rope_q, dim, count * dim, m->rows[row].position, q);
}

/* Queries [first, first + count) of a kv head; every row, from `row` on, has a group of them. */
static void attend(const fs_worker *w, const fs_op *op, int32_t row, int32_t kv, int32_t first,
                   int32_t count)
{
    const fs_model *m = w->run->model;
    const fs_layout *l = &m->layout;
    const fs_attending *mine = &m->attending[w->index];
    const int32_t dim = l->head_dim, group = op->x.width / op->y.width;
    const size_t nbytes = (size_t)dim * sizeof(float);
    for (int32_t i = 0; i < count; i++) {
        const int32_t at = row + (first + i) / group, head = kv * group + (first + i) % group;
        memcpy(mine->q + (int64_t)i * dim, fs_row_of(w, op->x, at) + (int64_t)head * dim, nbytes);
        mine->length[i] = m->rows[at].position + 1;
        mine->begin[i] = op->window && mine->length[i] > op->window ? mine->length[i] - op->window : 0;
    }
    const int64_t keys = ((int64_t)op->layer * l->n_kv_heads + kv) * l->head_nbytes;
    fs_attend a = {.kind = l->kind,
                   .queries = count,
                   .head_dim = dim,
                   .value_width = l->value_width,
                   .q = mine->q,
                   .begin = mine->begin,
                   .length = mine->length,
                   .pages = (const char *const *)m->rows[row].cache->pages,
                   .keys = keys,
                   .values = keys + l->values,
                   .scores = mine->scores,
                   .score_stride = fs_score_stride(mine->length[count - 1]),
                   .page = mine->page,
                   .out = mine->out,
                   .scale = op->scale,
                   .softcap = op->softcap};
    m->kernels.attend(&a);
    for (int32_t i = 0; i < count; i++) {
        const int32_t at = row + (first + i) / group, head = kv * group + (first + i) % group;
        memcpy(fs_row_of(w, op->out, at) + (int64_t)head * dim, mine->out + (int64_t)i * l->value_width,
               nbytes);
    }
}

/* How many queries go through attend() at once, where the last of them sees `length` positions and
 * there are `queries` of each of `heads` kv heads for the threads to share. */
static int32_t queries_at_once(const fs_worker *w, int32_t length, int32_t queries, int32_t heads)
{
    int64_t most = w->run->model->score_room / fs_score_stride(length);
    int32_t fair = (queries * heads + w->count - 1) / w->count;
    if (most > FS_QUERIES) most = FS_QUERIES;
    if (most > fair) most = fair;
    if (most > FS_FEWEST) most = most / FS_FEWEST * FS_FEWEST; /* whole tiles */
    return most < queries ? (int32_t)most : queries;
}

/* rows of different texts: whoever appends to a kv head needs nobody else */
static void attend_apart(const fs_worker *w, const fs_op *op)
{
    const int32_t dim = op->head_dim, kv_heads = op->y.width / dim;
    const int32_t group = op->x.width / op->y.width;
    int32_t i, end;
    fs_share(w, w->rows * kv_heads, &i, &end);
    for (; i < end && !fs_aborted(w); i++) {
        const int32_t row = i / kv_heads, kv = i % kv_heads;
        const int32_t position = w->run->model->rows[row].position;
        append(w, op, row, kv);
        ready_queries(w, op, row, kv * group, group);
        const int32_t once = queries_at_once(w, position + 1, group, w->count);
        for (int32_t first = 0; first < group; first += once)
            attend(w, op, row, kv, first, group - first < once ? group - first : once);
    }
}

static void attention(const fs_worker *w, const fs_op *op)
{
    const fs_model *m = w->run->model;
    const int32_t dim = op->head_dim, kv_heads = op->y.width / dim;
    const int32_t group = op->x.width / op->y.width, units = w->rows * kv_heads;
    int32_t i, end;
    if (w->run->apart && (units % w->count == 0 || units >= 2 * w->count)) {
        attend_apart(w, op);
        return;
    }
    fs_share(w, w->rows, &i, &end);
    for (int32_t row = i; row < end; row++) ready_queries(w, op, row, 0, kv_heads * group);
    while (i < end) {
        const int block = is_block(m, i, end);
        for (int32_t head = 0; head < kv_heads; head++) (block ? append_block : append)(w, op, i, head);
        i += block ? FS_LANES : 1;
    }
    if (fs_meet(w)) return;
    /* Tasks: for each run of rows, blocks of queries, the longest first, and each kv head of them. */
    int32_t task = fs_next_task(w), before = 0;
    for (int32_t r = 0; r < w->run->n_runs; r++) {
        const fs_run_of_rows *rows = &m->runs[r];
        const int32_t queries = rows->count * group;
        const int32_t length = m->rows[rows->first + rows->count - 1].position + 1;
        const int32_t once = queries_at_once(w, length, queries, kv_heads);
        const int32_t blocks = (queries + once - 1) / once, tasks = blocks * kv_heads;
        while (task < before + tasks && !fs_aborted(w)) {
            const int32_t first = (blocks - 1 - (task - before) / kv_heads) * once;
            attend(w, op, rows->first, (task - before) % kv_heads, first,
                   queries - first < once ? queries - first : once);
            task = fs_next_task(w);
        }
        before += tasks;
    }
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

/* the operations in order, for one thread of the team */
static void run_ops(fs_worker *w)
{
    fs_model *m = w->run->model;
    const int profile = m->profile && w->index == 0;
    for (const fs_op *op = m->ops; op < m->ops + m->n_ops; op++) {
        int64_t start = profile ? fs_nanoseconds() : 0;
        int64_t waited = profile ? m->spent[FS_WAITING] : 0;
        switch (op->kind) {
        case FS_EMBED: fs_embed(w, op); break;
        case FS_NORM: fs_norm(w, op); break;
        case FS_MATMUL: matmul(w, op); break;
        case FS_ROPE: rope(w, op); break;
        case FS_ATTENTION: attention(w, op); break;
        case FS_ACTIVATE: fs_activate(w, op); break;
        case FS_ADD:
        case FS_BIAS: fs_add(w, op); break;
        case FS_SCALE: fs_scale(w, op); break;
        case FS_EXPERTS: fs_experts(w, op); break;
        case FS_SELECT:
            if (!select_rows(w, op)) return;
            break;
        }
        fetch_ahead(w, op);
        if (fs_meet(w)) return;
        if (profile)
            m->spent[op->kind] += fs_nanoseconds() - start - (m->spent[FS_WAITING] - waited);
    }
}

/* ---- a step ---- */

static void run_team(fs_run *run, int32_t rows, int32_t threads)
{
    run->meetings = run->model->seats[0].meeting; /* those who were not in the last team missed some */
#ifdef _OPENMP
    if (threads > 1) {
#pragma omp parallel num_threads(threads)
        {
            fs_worker worker = {run, omp_get_thread_num(), omp_get_num_threads(), rows};
            run->model->seats[worker.index].meeting = run->meetings;
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

int32_t fs_step(fs_model *m, const fs_part *parts, int32_t n_parts, int32_t rows, float *logits)
{
    int32_t status = check(m, parts, n_parts), part = 0, row = 0;
    if (status != FS_DONE) return status;
    if (!reserve(m, parts, n_parts)) return FS_NO_MEMORY;
    fs_run run = {.model = m, .logits = logits};
    run.stop = atomic_load(&m->abort);
    while (part < n_parts && !run.stop) {
        int32_t count = gather(&run, parts, n_parts, rows, &part, &row);
        run_chunk(&run, count);
        if (logits) run.logits += (int64_t)run.n_selected * m->vocab;
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
