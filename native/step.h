/* What the files share that run a step: the team of threads, and where rows lie. */
#ifndef FS_STEP_H
#define FS_STEP_H

#include <stdatomic.h>

#include "model.h"
#include "sampler.h"

typedef struct {
    fs_model *model;
    int32_t n_runs;     /* of the chunk's rows: see model.h */
    int32_t n_selected; /* rows of the chunk whose logits are wanted */
    int32_t apart;      /* no two rows of the chunk have the same cache */
    float *logits;      /* of this chunk */
    const fs_survey *survey; /* of the one row of logits, for a draw; NULL: nobody asks */
    uint32_t meetings;  /* that there have been before this step */
    int32_t stop;       /* the first thread has been told to leave */
    char pad0[64];
    _Atomic uint64_t next; /* meetings so far << 32 | the task that nobody has taken yet */
    char pad1[64];
} fs_run;

typedef struct {
    fs_run *run;
    int32_t index, count; /* this thread of how many */
    int32_t rows;         /* rows that go through the operations now */
    int32_t first, last;  /* those that are this thread's alone; last 0: each operation shares anew */
} fs_worker;

int64_t fs_nanoseconds(void);

/* fs_step of one part whose last row is wanted, with a survey of its logits. */
int32_t fs_step_surveyed(fs_model *m, const fs_part *part, float *logits, const fs_survey *survey);

/* All threads of the team meet; returns whether to leave, the same to all of them. */
int fs_meet(const fs_worker *w);

/* 0, 1, ... from meeting to meeting, each to one thread only */
int32_t fs_next_task(const fs_worker *w);

/* Pieces [begin, end) of an operation that are one thread's alone; more: the same thread will get
 * those behind them next, but for what others take. */
typedef struct {
    int32_t begin, end, more;
} fs_pieces;

/* The next of n pieces, at most FS_MOST_PIECES: of the thread's own share as long as there are some,
 * then of what others have not begun; `least` or more where there are so many. 0 when all are taken.
 * One operation between two meetings may ask for them. */
#define FS_MOST_PIECES 65535
int fs_take(const fs_worker *w, int32_t n, int32_t least, fs_pieces *pieces);

/* Operations (rowwise.c, attention.c, experts.c), see plan.py; each leaves its threads to meet afterwards. */
void fs_embed(const fs_worker *w, const fs_op *op);
void fs_norm(const fs_worker *w, const fs_op *op);
void fs_activate(const fs_worker *w, const fs_op *op);
void fs_add(const fs_worker *w, const fs_op *op); /* FS_ADD and FS_BIAS */
void fs_scale(const fs_worker *w, const fs_op *op);
/* the norm of x: [width] -> y; the activation of a row -> out */
void fs_norm_row(const fs_worker *w, const fs_op *op, const float *x, float *y);
void fs_activate_row(const fs_worker *w, const fs_op *op, int32_t row, float *out);
void fs_experts(const fs_worker *w, const fs_op *op);
void fs_rope(const fs_worker *w, const fs_op *op);
void fs_attention(const fs_worker *w, const fs_op *op);

static inline int fs_aborted(const fs_worker *w)
{
    return atomic_load_explicit(&w->run->model->abort, memory_order_relaxed) != 0;
}

/* this thread's part of [0, n) */
static inline void fs_share(const fs_worker *w, int32_t n, int32_t *begin, int32_t *end)
{
    *begin = (int32_t)((int64_t)n * w->index / w->count);
    *end = (int32_t)((int64_t)n * (w->index + 1) / w->count);
}

/* this thread's rows in an operation that takes each row by itself */
static inline void fs_share_rows(const fs_worker *w, int32_t *begin, int32_t *end)
{
    *begin = w->first, *end = w->last;
    if (!w->last) fs_share(w, w->rows, begin, end);
}

static inline float *fs_row_of(const fs_worker *w, fs_slice s, int32_t row)
{
    const fs_model *m = w->run->model;
    if (s.buffer < 0) return w->run->logits + (int64_t)row * s.width + s.start;
    return m->buffers[s.buffer].data + row * m->buffers[s.buffer].stride + s.start;
}

/* floats from a row of it to the next */
static inline int64_t fs_stride_of(const fs_worker *w, fs_slice s)
{
    return s.buffer < 0 ? s.width : w->run->model->buffers[s.buffer].stride;
}

/* A matmul's input of floats x as its weights' kind wants it, where there are as many `rows` of it:
 * blocks of `into`, row into_row. */
static inline void fs_round_row(const fs_model *m, int32_t kind, const float *x, int32_t width,
                                const fs_prepared *into, int64_t into_row, int32_t rows)
{
    if (kind < FS_Q8) return;
    const int sums = !m->kernels.sumless || rows < m->kernels.sumless || kind > FS_Q4;
    m->kernels.quantise_wide(x, width, fs_offset(kind), into->q + into_row * m->q_stride,
                             into->scale + into_row * m->b_stride,
                             sums ? into->shift + into_row * m->b_stride : NULL);
}

#endif
