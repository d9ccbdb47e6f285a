/* Rope and attention: the operations of a step that ask for a row's cache and position. */
#include <string.h>

#include "step.h"

/* a head x: [head_dim] of a row turned by its position (turn -1: not at all) -> y, which may be x */
static void turn_head(const fs_model *m, int32_t turn, int32_t head_dim, int32_t position, const float *x,
                      float *y)
{
    int32_t turned = 0;
    if (turn >= 0) {
        const fs_turning *t = &m->turns[turn];
        turned = t->rotary_dim;
        m->kernels.rotate(x, t->table + (int64_t)position * turned * 2, turned, t->half, y);
    }
    if (x != y && turned < head_dim) memcpy(y + turned, x + turned, (size_t)(head_dim - turned) * sizeof *y);
}

void fs_rope(const fs_worker *w, const fs_op *op)
{
    const fs_model *m = w->run->model;
    int32_t row, end;
    fs_share(w, w->rows, &row, &end);
    for (; row < end; row++)
        for (int32_t head = 0; head < op->x.width; head += op->head_dim) {
            float *x = fs_row_of(w, op->x, row) + head;
            turn_head(m, op->rope_q, op->head_dim, m->rows[row].position, x, x);
        }
}

/* a head x: [head_dim] of a row's queries or keys, normalised and turned -> y, which may be x */
static void ready_head(const fs_model *m, const fs_op *op, int32_t norm, int32_t turn, int32_t position,
                       const float *x, float *y)
{
    if (norm >= 0) {
        m->kernels.rmsnorm(x, m->vectors[norm], op->head_dim, op->eps, y);
        x = y;
    }
    turn_head(m, turn, op->head_dim, position, x, y);
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

/* into the first cache, while other things are done */
static void fetch(const void *p, int64_t nbytes)
{
    for (int64_t i = 0; i < nbytes; i += 64) __builtin_prefetch((const char *)p + i);
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
    float *k = fs_row_of(w, op->y, row) + head * dim;
    char *keys = keys_of(m, op, row, head);
    ready_head(m, op, op->norm_k, op->rope_k, m->rows[row].position, k, k);
    store_head(w, k, keys + (block * dim * FS_LANES + lane) * number_nbytes(l),
               FS_LANES, keys + FS_PAGE * dim + (block * l->groups * FS_LANES + lane) * 4, FS_LANES);
    append_value(w, op, row, head);
}

/* The same for FS_LANES rows that are a whole block of positions of a text: keys turn in registers.
 * Meanwhile what the next head needs is fetched. */
static void append_block(const fs_worker *w, const fs_op *op, int32_t row, int32_t head)
{
    const fs_model *m = w->run->model;
    const fs_layout *l = &m->layout;
    const fs_attending *mine = &m->attending[w->index];
    const int32_t dim = l->head_dim;
    const int64_t at = m->rows[row].position % FS_PAGE, size = number_nbytes(l);
    char *keys = keys_of(m, op, row, head) + at * dim * size;
    const char *next = keys + l->head_nbytes;
    float *turned = l->kind == FS_KV_F32 ? (float *)keys : mine->page;
    for (int32_t i = 0; i < FS_LANES; i++) {
        const float *k = fs_row_of(w, op->y, row + i) + (int64_t)head * dim;
        const float *v = fs_row_of(w, op->z, row + i) + (int64_t)head * dim;
        fetch(k + dim, dim * 4);
        fetch(v + dim, dim * 4);
        fetch(next + i * dim * size, dim * size);
        fetch(next + l->values + i * dim * size, dim * size);
        ready_head(m, op, op->norm_k, op->rope_k, m->rows[row + i].position, k, mine->q + i * dim);
        append_value(w, op, row + i, head);
    }
    m->kernels.turn(mine->q, dim * 4LL, dim, turned);
    if (l->kind == FS_KV_F16) m->kernels.to_half(turned, dim * FS_LANES, (uint16_t *)keys);
}

/* whether rows from `row` on, below `end`, are such a block (of blocks with scales there are none) */
static int is_block(const fs_model *m, int32_t row, int32_t end)
{
    const fs_row *first = &m->rows[row], *last = first + FS_LANES - 1;
    return m->layout.kind != FS_KV_Q8 && row + FS_LANES <= end && first->position % FS_LANES == 0 &&
           last->cache == first->cache && last->position == first->position + FS_LANES - 1;
}

/* Queries [first, first + count) of a kv head; every row, from `row` on, has a group of them. */
typedef struct {
    int32_t row, kv, first, count;
} fs_queries;

/* where head of query i of them is in a row of x or of what becomes of it; its row -> *at */
static float *head_of(const fs_worker *w, const fs_op *op, fs_slice slice, const fs_queries *q, int32_t i,
                      int32_t *at)
{
    const int32_t group = op->x.width / op->y.width;
    *at = q->row + (q->first + i) / group;
    return fs_row_of(w, slice, *at) + (int64_t)(q->kv * group + (q->first + i) % group) * op->head_dim;
}

/* next: what this thread will attend to afterwards, or NULL */
static void attend(const fs_worker *w, const fs_op *op, const fs_queries *queries, const fs_queries *next)
{
    const fs_model *m = w->run->model;
    const fs_layout *l = &m->layout;
    const fs_attending *mine = &m->attending[w->index];
    const int32_t dim = l->head_dim, count = queries->count;
    for (int32_t i = 0; i < count; i++) {
        int32_t at, other;
        const float *x = head_of(w, op, op->x, queries, i, &at);
        ready_head(m, op, op->norm_q, op->rope_q, m->rows[at].position, x, mine->q + (int64_t)i * dim);
        mine->to[i] = head_of(w, op, op->out, queries, i, &at);
        mine->next[i] = next && i < next->count ? head_of(w, op, op->x, next, i, &other) : x;
        mine->length[i] = m->rows[at].position + 1;
        mine->begin[i] = op->window && mine->length[i] > op->window ? mine->length[i] - op->window : 0;
    }
    const int64_t keys = ((int64_t)op->layer * l->n_kv_heads + queries->kv) * l->head_nbytes;
    fs_attend a = {.kind = l->kind,
                   .queries = count,
                   .head_dim = dim,
                   .value_width = l->value_width,
                   .q = mine->q,
                   .begin = mine->begin,
                   .length = mine->length,
                   .pages = (const char *const *)m->rows[queries->row].cache->pages,
                   .keys = keys,
                   .values = keys + l->values,
                   .scores = mine->scores,
                   .score_stride = fs_score_stride(mine->length[count - 1]),
                   .page = mine->page,
                   .most = mine->most,
                   .out = mine->out,
                   .to = mine->to,
                   .next = mine->next,
                   .scale = op->scale,
                   .softcap = op->softcap};
    m->kernels.attend(&a);
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
        const int32_t once = queries_at_once(w, position + 1, group, w->count);
        for (int32_t first = 0; first < group; first += once)
            attend(w, op, &(fs_queries){row, kv, first, group - first < once ? group - first : once}, NULL);
    }
}

/* Tasks: for each run of rows and each kv head, whose pages stay near, blocks of queries, the longest
 * first. Number `task` -> *found; returns how many there are, or one more than `task`. */
static int32_t find_task(const fs_worker *w, const fs_op *op, int32_t task, fs_queries *found)
{
    const fs_model *m = w->run->model;
    const int32_t kv_heads = op->y.width / op->head_dim, group = op->x.width / op->y.width;
    int32_t before = 0;
    for (int32_t r = 0; r < w->run->n_runs; r++) {
        const fs_run_of_rows *rows = &m->runs[r];
        const int32_t queries = rows->count * group;
        const int32_t length = m->rows[rows->first + rows->count - 1].position + 1;
        const int32_t once = queries_at_once(w, length, queries, kv_heads);
        const int32_t blocks = (queries + once - 1) / once;
        if (task < before + blocks * kv_heads) {
            const int32_t first = (blocks - 1 - (task - before) % blocks) * once;
            *found = (fs_queries){rows->first, (task - before) / blocks, first,
                                  queries - first < once ? queries - first : once};
            return task + 1;
        }
        before += blocks * kv_heads;
    }
    return before;
}

void fs_attention(const fs_worker *w, const fs_op *op)
{
    const fs_model *m = w->run->model;
    const int32_t kv_heads = op->y.width / op->head_dim, units = w->rows * kv_heads;
    int32_t i, end;
    if (w->run->apart && (units % w->count == 0 || units >= 2 * w->count)) {
        attend_apart(w, op);
        return;
    }
    /* Shared by heads where that is fair, as the tasks below: who appends to a page is likely to read it. */
    int32_t head = 0, heads = kv_heads;
    if (kv_heads % w->count == 0) {
        fs_share(w, kv_heads, &head, &heads);
        i = 0, end = w->rows;
    } else {
        fs_share(w, w->rows, &i, &end);
    }
    while (i < end) {
        const int block = is_block(m, i, end);
        for (int32_t h = head; h < heads; h++) (block ? append_block : append)(w, op, i, h);
        i += block ? FS_LANES : 1;
    }
    if (fs_meet(w)) return;
    const int32_t tasks = find_task(w, op, INT32_MAX, NULL);
    for (fs_pieces p; fs_take(w, tasks, 1, &p);) {
        fs_queries queries, next;
        find_task(w, op, p.begin, &next);
        for (; p.begin < p.end && !fs_aborted(w); p.begin++) {
            queries = next;
            if (p.begin + 1 < p.end) find_task(w, op, p.begin + 1, &next);
            attend(w, op, &queries, &next);
        }
    }
}
