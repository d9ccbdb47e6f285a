/* What a model and a cache are made of; step.c runs them, model.c makes and frees them. */
#ifndef FS_MODEL_H
#define FS_MODEL_H

#include <stdatomic.h>

#include "fireside.h"
#include "governor.h"

#define FS_FEWEST 6     /* queries that there is always room for at once */
#define FS_SCORES 131072 /* scores of a thread, unless FS_FEWEST need more: 512 KiB */

typedef struct {
    float *data; /* [chunk][stride] */
    int64_t stride;
} fs_buffer;

/* Scores of a query from those of the next, where it sees `length` positions: whole pages, but not a
 * power of two, so that they do not share the places in the first cache. */
static inline int64_t fs_score_stride(int64_t length) { return fs_round_up(length, FS_PAGE) + FS_LANES; }

/* Room for the prepared input of a matmul: floats, or int8 blocks with scales and shifts. */
typedef struct {
    float *f;
    int8_t *q;
    float *scale;
    int32_t *shift;
} fs_prepared;

typedef struct {
    int32_t rotary_dim, half;
    float magnitude;
    double *frequency;
    float *table; /* [positions]: as rotate() wants it, [rotary_dim] cosines and as many sines */
} fs_turning;

/* Where things are in a page of the cache: [layer][kv head], each keys, then values (kernels.h). */
typedef struct {
    int32_t kind; /* FS_KV_... */
    int32_t head_dim, n_kv_heads, value_width, groups;
    int64_t values, head_nbytes, page_nbytes; /* bytes */
} fs_layout;

/* A row of the chunk that is computed: a token, its place, and the cache that it goes to. */
typedef struct {
    fs_cache *cache;
    int32_t token, position;
} fs_row;

/* Rows of a chunk that follow each other in one cache. */
typedef struct {
    int32_t first, count;
} fs_run_of_rows;

/* What attention works with, each thread for itself. */
typedef struct {
    float *q, *out, *page, *most, *scores;
    float **to;
    const float **next;
    int32_t *begin, *length;
} fs_attending;

/* What mixtures of experts work with: pairs of a row and an expert that it chose, ordered by expert. */
typedef struct {
    int32_t n, used, hidden, dim; /* the most of all such operations; used 0: there are none */
    int32_t *chosen;              /* [chunk][used] */
    float *weight;                /* [chunk][used] */
    fs_prepared input;            /* [chunk * used] */
    float *gate, *up;             /* [chunk * used][hidden] */
    float *result;                /* [chunk * used][dim] */
    int32_t **begin, **place;     /* [threads]: [n + 1] first pair of each expert, [chunk * used] */
} fs_mixing;

#define FS_ROUNDS 16 /* of telling each other at a meeting, so for up to 65,536 threads */

/* A thread's place in the team, see team.c. Each part has cache lines of its own. */
typedef struct {
    _Atomic uint32_t told[2][FS_ROUNDS]; /* by others: meeting << 1 | whether to leave */
    char pad0[128];
    uint32_t meeting;             /* how many there have been */
    const char *ahead, *ahead_end; /* what it will read next */
    char pad1[128];
    _Atomic uint64_t taken; /* meeting << 32 | pieces taken from the front << 16 | from the back */
    char pad2[128];
} fs_seat;

struct fs_model {
    fs_kernels kernels;
    fs_layout layout;
    int32_t threads, chunk;
    int32_t n_ops, n_turns, vocab;
    int32_t rows_apart; /* so many for each thread and more: each has its own, see step.c */
    int32_t places; /* positions of a text that there may be */
    fs_op *ops;
    fs_buffer *buffers;
    fs_matrix *matrices;
    const float **vectors;
    fs_turning *turns;
    int64_t turned, turn_room;            /* positions in the tables of turns, room in them */
    int64_t f_stride, q_stride, b_stride; /* of prepared rows */
    fs_prepared shared;                   /* [chunk] rows */
    fs_prepared *mine;                    /* [threads], one row each */
    fs_attending *attending;              /* [threads] */
    fs_seat *seats;                       /* [threads] */
    fs_mixing mixing;
    int64_t score_room;                   /* floats in each one's scores */
    float *scores;                        /* [threads][score_room] */
    fs_row *rows;                         /* [chunk] */
    fs_run_of_rows *runs;                 /* [chunk] */
    int32_t *selected;                    /* [chunk]: rows whose logits are wanted */
    char *scratch;
    int64_t scratch_nbytes;
    fs_governor governor;
    _Atomic int32_t abort;
    int32_t profile;
    int64_t spent[FS_PROFILED]; /* nanoseconds, counted by the first thread */
};

struct fs_cache {
    int64_t capacity, page_nbytes;
    int64_t held; /* pages, from the first on */
    char **pages;
};

void fs_layout_init(fs_layout *layout, int32_t kind, int32_t n_layers, int32_t n_kv_heads,
                    int32_t head_dim);
/* Pages for positions [position, position + n) that nobody else holds; 0 where memory is short. */
int fs_cache_reserve(fs_cache *cache, int64_t position, int64_t n);
/* Room for texts of `length` positions: turns and scores; 0 where memory is short. */
int fs_model_reserve(fs_model *model, int64_t length);

#endif
