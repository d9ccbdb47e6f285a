/* What a model and a cache are made of; step.c runs them, model.c makes and frees them. */
#ifndef FS_MODEL_H
#define FS_MODEL_H

#include <stdatomic.h>

#include "fireside.h"
#include "governor.h"

typedef struct {
    float *data; /* [chunk][stride] */
    int64_t stride;
} fs_buffer;

/* Room for the prepared input of a matmul: floats, or int8 blocks with scales and shifts. */
typedef struct {
    float *f;
    int8_t *q;
    float *scale;
    int32_t *shift;
    int8_t *scratch; /* for a kernel's own use, only in a thread's own */
} fs_prepared;

typedef struct {
    int32_t rotary_dim, half;
    double *frequency;
} fs_turning;

struct fs_model {
    fs_kernels kernels;
    int32_t threads, chunk;
    int32_t n_ops, n_layers, n_kv_heads, head_dim, n_turns, vocab;
    fs_op *ops;
    fs_buffer *buffers;
    fs_matrix *matrices;
    const float **vectors;
    fs_turning *turns;
    int64_t f_stride, q_stride, b_stride; /* of prepared rows */
    fs_prepared shared;                   /* [chunk] rows */
    fs_prepared *mine;                    /* [threads], one row each */
    char *scratch;
    int64_t scratch_nbytes;
    fs_governor governor;
    _Atomic int32_t abort;
    int32_t profile;
    int64_t spent[FS_PROFILED]; /* nanoseconds, counted by the first thread */
};

struct fs_cache {
    int64_t capacity, value_width, layer_keys, layer_values, nbytes;
    float *keys;   /* [layer][kv head][capacity / 16][head_dim][16] */
    float *values; /* [layer][kv head][capacity][value_width] */
    float *scores; /* [threads][FS_QUERIES][capacity] */
    float **turns; /* per turn: [capacity][rotary_dim / 2][cos, sin] */
    int32_t n_turns, turned; /* positions for which the turns are filled in */
    char *memory;
};

#endif
