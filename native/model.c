/* Making and freeing models: all memory a step needs, but for the cache, is taken here. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model.h"

/* Hands out 64-byte aligned parts; a first round with memory NULL only counts. */
typedef struct {
    char *memory;
    int64_t used;
} fs_arena;

static void *take(fs_arena *arena, int64_t nbytes)
{
    char *p = arena->memory ? arena->memory + arena->used : NULL;
    arena->used += fs_round_up(nbytes, 64);
    return p;
}

static void take_prepared(fs_arena *arena, const fs_model *m, int64_t rows, fs_prepared *p)
{
    p->f = take(arena, rows * m->f_stride * 4);
    p->q = take(arena, rows * m->q_stride);
    p->scale = take(arena, rows * m->b_stride * 4);
    p->shift = take(arena, rows * m->b_stride * 4);
}

static void take_mixing(fs_arena *arena, fs_model *m)
{
    fs_mixing *x = &m->mixing;
    /* kernels may read rows up to the next 16 */
    const int64_t pairs = m->chunk * (int64_t)x->used, rows = pairs + FS_LANES;
    x->chosen = take(arena, pairs * 4);
    x->weight = take(arena, pairs * 4);
    take_prepared(arena, m, rows, &x->input);
    x->gate = take(arena, rows * x->hidden * 4);
    x->up = take(arena, rows * x->hidden * 4);
    x->result = take(arena, rows * x->dim * 4);
    for (int32_t i = 0; i < m->threads; i++) {
        x->begin[i] = take(arena, (x->n + 1) * 4LL);
        x->place[i] = take(arena, pairs * 4);
    }
}

static void take_scratch(fs_arena *arena, fs_model *m, const fs_shape *shape)
{
    for (int32_t i = 0; i < shape->n_buffers; i++)
        m->buffers[i].data = take(arena, m->chunk * m->buffers[i].stride * 4);
    take_prepared(arena, m, m->chunk, &m->shared);
    m->rows = take(arena, m->chunk * (int64_t)sizeof *m->rows);
    m->runs = take(arena, m->chunk * (int64_t)sizeof *m->runs);
    m->selected = take(arena, m->chunk * 4);
    m->seats = take(arena, m->threads * (int64_t)sizeof *m->seats);
    for (int32_t i = 0; i < m->threads; i++) {
        take(arena, 64); /* keeps neighbours off each other's cache lines */
        take_prepared(arena, m, 1, &m->mine[i]);
        fs_attending *a = &m->attending[i];
        const int64_t width = m->layout.value_width;
        a->q = take(arena, FS_QUERIES * width * 4);
        a->out = take(arena, FS_QUERIES * width * 4);
        a->page = take(arena, FS_PAGE * width * 4);
        a->most = take(arena, FS_QUERIES * FS_LANES * 4);
        a->to = take(arena, FS_QUERIES * (int64_t)sizeof *a->to);
        a->next = take(arena, FS_QUERIES * (int64_t)sizeof *a->next);
        a->begin = take(arena, FS_QUERIES * 4);
        a->length = take(arena, FS_QUERIES * 4);
    }
    if (m->mixing.used) take_mixing(arena, m);
}

static void *copy(const void *from, int64_t count, size_t size)
{
    void *p = calloc(count ? (size_t)count : 1, size);
    if (p && count) memcpy(p, from, (size_t)count * size);
    return p;
}

static int64_t odd_lines(int64_t nbytes)
{
    return (fs_round_up(nbytes, 64) / 64 | 1) * 64;
}

static void at_least(int32_t *most, int32_t value)
{
    if (*most < value) *most = value;
}

/* the most that any operation needs of what is no buffer; returns the widest row among it */
static int32_t measure(fs_model *m, const fs_shape *shape)
{
    fs_mixing *x = &m->mixing;
    int32_t widest = FS_LANES;
    m->places = INT32_MAX;
    for (int32_t i = 0; i < shape->n_ops; i++) {
        const fs_op *op = &shape->ops[i];
        if (op->kind == FS_EMBED && op->positions >= 0) {
            at_least(&widest, op->out.width);
            if (shape->matrices[op->positions].rows < m->places)
                m->places = shape->matrices[op->positions].rows;
        } else if (op->kind == FS_EXPERTS) {
            at_least(&x->n, op->y.width);
            at_least(&x->used, op->used);
            at_least(&x->hidden, (int32_t)fs_round_up(op->hidden, FS_LANES));
            at_least(&x->dim, (int32_t)fs_round_up(op->out.width, FS_LANES));
            at_least(&widest, x->hidden);
        }
    }
    return widest;
}

/* Rows a thread from which on it is quicker where each has its own. Of small matrices a thread's part is
 * soon done, and to meet and to read the others' rows takes long beside it; of large ones it takes as
 * long to take the weights apart, which each thread then does for itself. */
static int32_t rows_apart(const fs_shape *shape)
{
    enum { SMALL = 1 << 20, FEW = 32, MANY = 96 };
    int64_t weights = 0, matmuls = 0;
    for (const fs_op *op = shape->ops; op < shape->ops + shape->n_ops && op->kind != FS_SELECT; op++)
        if (op->kind == FS_MATMUL) weights += (int64_t)op->x.width * op->out.width, matmuls++;
    return weights <= matmuls * SMALL ? FEW : MANY;
}

static int fill_model(fs_model *m, const fs_shape *shape)
{
    int64_t widest = measure(m, shape);
    m->rows_apart = rows_apart(shape);
    m->ops = copy(shape->ops, shape->n_ops, sizeof *shape->ops);
    m->buffers = calloc((size_t)shape->n_buffers + 1, sizeof *m->buffers);
    m->matrices = calloc((size_t)shape->n_matrices + 1, sizeof *m->matrices);
    m->vectors = calloc((size_t)shape->n_vectors + 1, sizeof *m->vectors);
    m->turns = calloc((size_t)shape->n_turns + 1, sizeof *m->turns);
    m->mine = calloc((size_t)m->threads, sizeof *m->mine);
    m->attending = calloc((size_t)m->threads, sizeof *m->attending);
    m->mixing.begin = calloc((size_t)m->threads, sizeof *m->mixing.begin);
    m->mixing.place = calloc((size_t)m->threads, sizeof *m->mixing.place);
    if (!m->ops || !m->buffers || !m->matrices || !m->vectors || !m->turns || !m->mine ||
        !m->attending || !m->mixing.begin || !m->mixing.place)
        return 0;
    for (int32_t i = 0; i < shape->n_buffers; i++) {
        m->buffers[i].stride = odd_lines(shape->widths[i] * 4LL) / 4;
        if (m->buffers[i].stride > widest) widest = m->buffers[i].stride;
    }
    for (int32_t i = 0; i < shape->n_matrices; i++) {
        const fs_weight *w = &shape->matrices[i];
        fs_matrix_init(&m->matrices[i], w->kind, w->rows, w->cols, w->data);
    }
    for (int32_t i = 0; i < shape->n_vectors; i++) m->vectors[i] = shape->vectors[i].data;
    for (int32_t i = 0; i < shape->n_turns; i++) {
        const fs_turn *t = &shape->turns[i];
        m->turns[i] = (fs_turning){t->rotary_dim, t->half, t->magnitude, NULL, NULL};
        m->turns[i].frequency = copy(t->frequency, t->rotary_dim / 2, sizeof(double));
        if (!m->turns[i].frequency) return 0;
    }
    /* an odd number of cache lines: 16 rows at once must not fall into the same few cache sets */
    m->f_stride = odd_lines(widest * 4) / 4;
    m->q_stride = odd_lines(widest);
    m->b_stride = odd_lines(m->q_stride / FS_BLOCK * 4) / 4;
    fs_arena arena = {NULL, 0};
    take_scratch(&arena, m, shape);
    m->scratch_nbytes = arena.used;
    arena = (fs_arena){fs_memory_new(arena.used, 1), 0};
    m->scratch = arena.memory;
    if (!m->scratch) return 0;
    take_scratch(&arena, m, shape);
    return 1;
}

fs_model *fs_model_new(const fs_shape *shape)
{
    fs_model *m = calloc(1, sizeof *m);
    if (!m) return NULL;
    m->kernels = fs_isa_kernels(shape->isa);
    m->threads = shape->threads;
    m->chunk = shape->chunk;
    m->n_ops = shape->n_ops;
    fs_layout_init(&m->layout, shape->cache, shape->n_layers, shape->n_kv_heads, shape->head_dim);
    m->n_turns = shape->n_turns;
    m->vocab = shape->vocab;
    if (!fill_model(m, shape)) {
        fs_model_free(m);
        return NULL;
    }
    return m;
}

void fs_model_free(fs_model *m)
{
    if (!m) return;
    if (m->turns)
        for (int32_t i = 0; i < m->n_turns; i++) {
            free(m->turns[i].frequency);
            free(m->turns[i].table);
        }
    free(m->turns);
    free(m->ops);
    free(m->buffers);
    free(m->matrices);
    free(m->vectors);
    free(m->mine);
    free(m->attending);
    free(m->mixing.begin);
    free(m->mixing.place);
    fs_memory_free(m->scores, m->threads * m->score_room * 4);
    fs_memory_free(m->scratch, m->scratch_nbytes);
    free(m);
}

int64_t fs_model_scratch(const fs_model *m) { return m->scratch_nbytes; }

/* cosines and sines of positions up to `end`, in double */
static void fill_turns(fs_model *m, int64_t end)
{
    for (; m->turned < end; m->turned++) {
        for (int32_t t = 0; t < m->n_turns; t++) {
            const fs_turning *turn = &m->turns[t];
            const int32_t pairs = turn->rotary_dim / 2;
            float *cosines = turn->table + m->turned * pairs * 4, *sines = cosines + pairs * 2;
            for (int32_t i = 0; i < pairs; i++) {
                const int32_t first = turn->half ? i : 2 * i, second = turn->half ? i + pairs : 2 * i + 1;
                double angle = (double)m->turned * turn->frequency[i];
                cosines[first] = cosines[second] = (float)(cos(angle) * turn->magnitude);
                sines[second] = (float)(sin(angle) * turn->magnitude);
                sines[first] = -sines[second];
            }
        }
    }
}

static int grow_turns(fs_model *m, int64_t length)
{
    int64_t room = length > 2 * m->turn_room ? length : 2 * m->turn_room;
    for (int32_t t = 0; t < m->n_turns; t++) {
        int64_t nbytes = (room < 256 ? 256 : room) * m->turns[t].rotary_dim * 8;
        float *table = realloc(m->turns[t].table, (size_t)(nbytes ? nbytes : 4));
        if (!table) return 0;
        m->turns[t].table = table;
    }
    m->turn_room = room < 256 ? 256 : room;
    return 1;
}

int fs_model_reserve(fs_model *m, int64_t length)
{
    const int64_t needed = fs_score_stride(length) * FS_FEWEST;
    if (needed > m->score_room) {
        int64_t room = needed > FS_SCORES ? 2 * needed : FS_SCORES;
        float *scores = fs_memory_new(m->threads * room * 4, 0);
        if (!scores) return 0;
        fs_memory_free(m->scores, m->threads * m->score_room * 4);
        m->scores = scores;
        m->score_room = room;
        for (int32_t i = 0; i < m->threads; i++) m->attending[i].scores = scores + i * room;
    }
    if (length > m->turn_room && !grow_turns(m, length)) return 0;
    fill_turns(m, length);
    return 1;
}
