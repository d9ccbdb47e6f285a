/* A mixture of experts: every row goes through the few that its router chose.
 *
 * Pairs of a row and an expert lie ordered by expert, so that an expert's weights are read once for
 * all rows that chose it, and those that nobody chose not at all. A pair's result does not depend on
 * the others; those of a row are added up in the order in which it chose them. */
#include <string.h>

#include "step.h"

enum { PANELS = 8 }; /* of a task */

/* the `used` experts with the largest weights, the first of equals first */
static void choose(const fs_worker *w, const fs_op *op, int32_t row)
{
    const fs_model *m = w->run->model;
    const int32_t n = op->y.width;
    int32_t *chosen = m->mixing.chosen + row * op->used;
    float *weight = m->mixing.weight + row * op->used, *all = m->mine[w->index].f, sum = 0.0f;
    memcpy(all, fs_row_of(w, op->y, row), (size_t)n * sizeof(float));
    const float inverse = m->kernels.softmax(all, n);
    for (int32_t slot = 0; slot < op->used; slot++) {
        int32_t best = 0;
        for (int32_t e = 1; e < n; e++)
            if (all[e] > all[best]) best = e;
        chosen[slot] = best;
        weight[slot] = all[best] * inverse;
        sum += weight[slot];
        all[best] = -1.0f; /* below all weights */
    }
    if (op->normalise)
        for (int32_t slot = 0; slot < op->used; slot++) weight[slot] /= sum;
}

/* Where each pair goes: every thread finds it out for itself. */
static void order(const fs_worker *w, const fs_op *op)
{
    const fs_mixing *x = &w->run->model->mixing;
    const int32_t pairs = w->rows * op->used, n = op->y.width;
    int32_t *begin = x->begin[w->index], *place = x->place[w->index], sum = 0;
    memset(begin, 0, (size_t)(n + 1) * sizeof *begin);
    for (int32_t i = 0; i < pairs; i++) begin[x->chosen[i]]++;
    for (int32_t e = 0; e <= n; e++) {
        int32_t count = begin[e];
        begin[e] = sum;
        sum += count;
    }
    for (int32_t i = 0; i < pairs; i++) place[i] = begin[x->chosen[i]]++;
    for (int32_t e = n; e > 0; e--) begin[e] = begin[e - 1]; /* back to where they begin */
    begin[0] = 0;
}

/* the rows' x for every pair, as weights of a kind want it */
static void spread(const fs_worker *w, const fs_op *op, int32_t kind)
{
    const fs_model *m = w->run->model;
    int32_t i, end;
    fs_share(w, w->rows * op->used, &i, &end);
    for (; i < end; i++) {
        const int64_t to = m->mixing.place[w->index][i];
        const float *x = fs_row_of(w, op->x, i / op->used);
        if (kind < FS_Q8)
            memcpy(m->mixing.input.f + to * m->f_stride, x, (size_t)op->x.width * sizeof(float));
        fs_round_row(m, kind, x, op->x.width, &m->mixing.input, to, 1);
    }
}

/* out [pairs][stride] = each pair's expert @ its input. *task is the one to do next, *before counts
 * those of the calls before this one without a barrier between. */
static void multiply(const fs_worker *w, const fs_op *op, int32_t number, int32_t rows, float *out,
                     int32_t stride, int32_t *task, int32_t *before)
{
    const fs_model *m = w->run->model;
    const fs_prepared *input = &m->mixing.input;
    const int32_t *begin = m->mixing.begin[w->index], n = op->y.width;
    fs_matrix expert = m->matrices[number];
    expert.rows = rows;
    expert.panels = (rows + FS_LANES - 1) / FS_LANES;
    const int32_t tasks = (expert.panels + PANELS - 1) / PANELS;
    for (int32_t e = 0; e < n; e++) {
        const int64_t first = begin[e];
        const int32_t count = begin[e + 1] - begin[e];
        if (!count) continue;
        expert.data = m->matrices[number].data + e * (int64_t)expert.panels * expert.panel_bytes;
        fs_acts x = {.f = input->f + first * m->f_stride,
                     .f_stride = m->f_stride,
                     .q = input->q + first * m->q_stride,
                     .q_stride = m->q_stride,
                     .scale = input->scale + first * m->b_stride,
                     .shift = input->shift + first * m->b_stride,
                     .b_stride = m->b_stride};
        fs_out to = {out + first * stride, stride, 0, NULL};
        while (*task < *before + tasks && !fs_aborted(w)) {
            const int32_t panel = (*task - *before) * PANELS, end = panel + PANELS;
            m->kernels.matmul[expert.kind](&expert, &x, &to, count, panel,
                                           end < expert.panels ? end : expert.panels);
            *task = fs_next_task(w);
        }
        *before += tasks;
    }
}

static void first_task(const fs_worker *w, int32_t *task, int32_t *before)
{
    *before = 0;
    *task = fs_next_task(w);
}

/* the pairs' act(gate) * up, as weights of a kind want it */
static void activate(const fs_worker *w, const fs_op *op, int32_t kind)
{
    const fs_model *m = w->run->model;
    const int64_t stride = m->mixing.hidden;
    int32_t i, end;
    fs_share(w, w->rows * op->used, &i, &end);
    for (; i < end; i++) {
        float *f = m->mixing.input.f + i * m->f_stride;
        m->kernels.activate(op->activation, m->mixing.gate + i * stride, m->mixing.up + i * stride,
                            op->hidden, f);
        fs_round_row(m, kind, f, op->hidden, &m->mixing.input, i, 1);
    }
}

static void gather(const fs_worker *w, const fs_op *op)
{
    const fs_mixing *x = &w->run->model->mixing;
    int32_t row, end;
    fs_share(w, w->rows, &row, &end);
    for (; row < end; row++) {
        float *out = fs_row_of(w, op->out, row);
        for (int32_t slot = 0; slot < op->used; slot++) {
            const int32_t pair = row * op->used + slot;
            const float *result = x->result + x->place[w->index][pair] * (int64_t)x->dim;
            const float weight = x->weight[pair];
            for (int32_t i = 0; i < op->out.width; i++)
                out[i] = (slot ? out[i] : 0.0f) + weight * result[i];
        }
    }
}

void fs_experts(const fs_worker *w, const fs_op *op)
{
    const fs_model *m = w->run->model;
    const fs_mixing *x = &m->mixing;
    const int32_t gate = m->matrices[op->matrix].kind, up = m->matrices[op->up].kind;
    int32_t row, end, task, before;
    fs_share(w, w->rows, &row, &end);
    for (; row < end; row++) choose(w, op, row);
    if (fs_meet(w)) return;
    order(w, op);
    spread(w, op, gate);
    if (fs_meet(w)) return;
    first_task(w, &task, &before);
    multiply(w, op, op->matrix, op->hidden, x->gate, x->hidden, &task, &before);
    if (up != gate) { /* the same x for another kind of weights */
        if (fs_meet(w)) return;
        spread(w, op, up);
        if (fs_meet(w)) return;
        first_task(w, &task, &before);
    }
    multiply(w, op, op->up, op->hidden, x->up, x->hidden, &task, &before);
    if (fs_meet(w)) return;
    activate(w, op, m->matrices[op->down].kind);
    if (fs_meet(w)) return;
    first_task(w, &task, &before);
    multiply(w, op, op->down, op->out.width, x->result, x->dim, &task, &before);
    if (fs_meet(w)) return;
    gather(w, op);
}
