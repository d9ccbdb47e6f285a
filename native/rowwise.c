/* Operations on one row each, shared among the threads by rows. */
#include "step.h"

void fs_embed(const fs_worker *w, const fs_op *op)
{
    const fs_model *m = w->run->model;
    float *place = m->mine[w->index].f;
    int32_t row, end;
    fs_share_rows(w, &row, &end);
    for (; row < end; row++) {
        float *x = fs_row_of(w, op->out, row);
        fs_unpack_row(&m->matrices[op->matrix], m->rows[row].token, x);
        if (op->scale != 1.0f)
            for (int32_t i = 0; i < op->out.width; i++) x[i] *= op->scale;
        if (op->positions < 0) continue;
        fs_unpack_row(&m->matrices[op->positions], m->rows[row].position, place);
        for (int32_t i = 0; i < op->out.width; i++) x[i] += place[i];
    }
}

/* y = norm of x, both [op->x.width] */
void fs_norm_row(const fs_worker *w, const fs_op *op, const float *x, float *y)
{
    const fs_model *m = w->run->model;
    const float *weight = m->vectors[op->vector];
    const int32_t width = op->x.width, unit = op->head_dim ? op->head_dim : width;
    if (op->norm == FS_LAYER) {
        const float *bias = op->vector_bias < 0 ? NULL : m->vectors[op->vector_bias];
        for (int32_t i = 0; i < width; i += unit)
            m->kernels.layernorm(x + i, weight + i, bias ? bias + i : NULL, unit, op->eps, y + i);
        return;
    }
    for (int32_t i = 0; i < width; i += unit) m->kernels.rmsnorm(x + i, weight, unit, op->eps, y + i);
}

static void add_to(float *out, const float *x, int32_t width)
{
    for (int32_t i = 0; i < width; i++) out[i] += x[i];
}

void fs_norm(const fs_worker *w, const fs_op *op)
{
    const fs_model *m = w->run->model;
    int32_t row, end;
    fs_share_rows(w, &row, &end);
    for (; row < end; row++) {
        float *out = fs_row_of(w, op->out, row), *y = op->add ? m->mine[w->index].f : out;
        fs_norm_row(w, op, fs_row_of(w, op->x, row), y);
        if (op->add) add_to(out, y, op->out.width);
    }
}

void fs_activate_row(const fs_worker *w, const fs_op *op, int32_t row, float *out)
{
    const float *up = op->y.width ? fs_row_of(w, op->y, row) : NULL;
    w->run->model->kernels.activate(op->activation, fs_row_of(w, op->x, row), up, op->x.width, out);
}

void fs_activate(const fs_worker *w, const fs_op *op)
{
    int32_t row, end;
    fs_share_rows(w, &row, &end);
    for (; row < end; row++) fs_activate_row(w, op, row, fs_row_of(w, op->out, row));
}

void fs_add(const fs_worker *w, const fs_op *op)
{
    const fs_model *m = w->run->model;
    int32_t row, end;
    fs_share_rows(w, &row, &end);
    for (; row < end; row++)
        add_to(fs_row_of(w, op->out, row),
               op->kind == FS_BIAS ? m->vectors[op->vector] : fs_row_of(w, op->x, row), op->out.width);
}

/* pieces of rows, because rows of logits are long and often alone */
void fs_scale(const fs_worker *w, const fs_op *op)
{
    enum { PIECE = 2048 };
    const int32_t pieces = (op->x.width + PIECE - 1) / PIECE;
    int32_t i, end;
    fs_share(w, w->rows * pieces, &i, &end);
    for (; i < end; i++) {
        const int32_t first = i % pieces * PIECE, rest = op->x.width - first;
        w->run->model->kernels.softcap(fs_row_of(w, op->x, i / pieces) + first,
                                       rest < PIECE ? rest : PIECE, op->scale, op->softcap);
    }
}
