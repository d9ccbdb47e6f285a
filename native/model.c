/* Making and freeing models and caches: all memory a step needs is taken here. */
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

static void take_scratch(fs_arena *arena, fs_model *m, const fs_shape *shape)
{
    for (int32_t i = 0; i < shape->n_buffers; i++)
        m->buffers[i].data = take(arena, m->chunk * m->buffers[i].stride * 4);
    take_prepared(arena, m, m->chunk, &m->shared);
    for (int32_t i = 0; i < m->threads; i++) {
        take(arena, 64); /* keeps neighbours off each other's cache lines */
        take_prepared(arena, m, 1, &m->mine[i]);
        m->mine[i].scratch = take(arena, m->q_stride * FS_LANES);
    }
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

static int fill_model(fs_model *m, const fs_shape *shape)
{
    int64_t widest = FS_LANES;
    m->ops = copy(shape->ops, shape->n_ops, sizeof *shape->ops);
    m->buffers = calloc((size_t)shape->n_buffers + 1, sizeof *m->buffers);
    m->matrices = calloc((size_t)shape->n_matrices + 1, sizeof *m->matrices);
    m->vectors = calloc((size_t)shape->n_vectors + 1, sizeof *m->vectors);
    m->turns = calloc((size_t)shape->n_turns + 1, sizeof *m->turns);
    m->mine = calloc((size_t)m->threads, sizeof *m->mine);
    if (!m->ops || !m->buffers || !m->matrices || !m->vectors || !m->turns || !m->mine) return 0;
    for (int32_t i = 0; i < shape->n_buffers; i++) {
        m->buffers[i].stride = fs_round_up(shape->widths[i], FS_LANES);
        if (m->buffers[i].stride > widest) widest = m->buffers[i].stride;
    }
    for (int32_t i = 0; i < shape->n_matrices; i++) {
        const fs_weight *w = &shape->matrices[i];
        fs_matrix_init(&m->matrices[i], w->kind, w->rows, w->cols, w->data);
    }
    for (int32_t i = 0; i < shape->n_vectors; i++) m->vectors[i] = shape->vectors[i].data;
    for (int32_t i = 0; i < shape->n_turns; i++) {
        const fs_turn *t = &shape->turns[i];
        m->turns[i] = (fs_turning){t->rotary_dim, t->half, NULL};
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
    arena = (fs_arena){fs_memory_new(arena.used, 0), 0};
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
    m->n_layers = shape->n_layers;
    m->n_kv_heads = shape->n_kv_heads;
    m->head_dim = shape->head_dim;
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
        for (int32_t i = 0; i < m->n_turns; i++) free(m->turns[i].frequency);
    free(m->turns);
    free(m->ops);
    free(m->buffers);
    free(m->matrices);
    free(m->vectors);
    free(m->mine);
    fs_memory_free(m->scratch, m->scratch_nbytes);
    free(m);
}

int64_t fs_model_scratch(const fs_model *m) { return m->scratch_nbytes; }

static void take_cache(fs_arena *arena, const fs_model *m, fs_cache *c)
{
    c->keys = take(arena, m->n_layers * c->layer_keys * 4);
    c->values = take(arena, m->n_layers * c->layer_values * 4);
    c->scores = take(arena, m->threads * FS_QUERIES * c->capacity * 4);
    for (int32_t t = 0; t < m->n_turns; t++)
        c->turns[t] = take(arena, c->capacity * m->turns[t].rotary_dim * 4);
}

fs_cache *fs_cache_new(const fs_model *m, int64_t capacity)
{
    fs_cache *c = calloc(1, sizeof *c);
    if (!c) return NULL;
    c->capacity = fs_round_up(capacity, FS_LANES);
    c->value_width = fs_round_up(m->head_dim, FS_LANES);
    c->layer_keys = m->n_kv_heads * c->capacity * m->head_dim;
    c->layer_values = m->n_kv_heads * c->capacity * c->value_width;
    c->n_turns = m->n_turns;
    c->turns = calloc((size_t)m->n_turns + 1, sizeof *c->turns);
    if (c->turns) {
        fs_arena arena = {NULL, 0};
        take_cache(&arena, m, c);
        c->nbytes = arena.used;
        /* no huge pages: 8% faster attention, but a short text would touch all of a long cache */
        arena = (fs_arena){fs_memory_new(arena.used, 0), 0};
        c->memory = arena.memory;
        if (c->memory) {
            take_cache(&arena, m, c);
            return c;
        }
    }
    fs_cache_free(c);
    return NULL;
}

void fs_cache_free(fs_cache *c)
{
    if (!c) return;
    fs_memory_free(c->memory, c->nbytes);
    free(c->turns);
    free(c);
}

int64_t fs_cache_nbytes(const fs_cache *c) { return c->nbytes; }
