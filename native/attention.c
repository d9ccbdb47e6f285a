/* Rope and attention: the operations of a step that ask for a row's cache and position. */
#include <string.h>

#include "step.h"

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

void fs_rope(const fs_worker *w, const fs_op *op)
{
    int32_t row, end;
    fs_share(w, w->rows, &row, &end);
    for (; row < end; row++)
        turn_row(w->run, op->rope_q, op->head_dim, op->x.width, w->run->model->rows[row].position,
                 fs_row_of(w, op->x, row));
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
    m->kernels.turn(fs_row_of(w, op->y, row) + (int64_t)head * dim, fs_stride_of(w, op->y) * 4, dim, turned);
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

void fs_attention(const fs_worker *w, const fs_op *op)
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
