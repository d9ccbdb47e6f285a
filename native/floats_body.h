/* Matrices of floats and halfs; a part of kernels_body.h. */

/* 16 weights from `index` on */
FS_INLINE v16 v_weight(const int KIND, const uint8_t *p, int64_t index)
{
    if (KIND == FS_F32) return v_load((const float *)p + index);
    return KIND == FS_F16 ? v_half((const uint16_t *)p + index) : v_brain((const uint16_t *)p + index);
}

/* Where a tile reads: a pointer for three panels and for three rows each, the others by their distance.
 * More than that, and there are too few registers; what a compiler sees through it makes more of. */
#if defined(__GNUC__)
#define FS_HIDE(p) __asm__("" : "+r"(p))
#define FS_NO_UNROLL _Pragma("GCC unroll 1")
#else
#define FS_HIDE(p) ((void)(p))
#define FS_NO_UNROLL
#endif
typedef struct {
    const uint8_t *weights[(MAX_P + 2) / 3];
    const float *rows[(MAX_R + 2) / 3];
    int64_t step, stride; /* bytes between panels, floats between rows */
} fs_reading;

FS_INLINE fs_reading fs_read_from(const int P, const int R, const uint8_t *weights, int64_t step,
                                  const float *a, int64_t stride)
{
    fs_reading in = {.step = step, .stride = stride};
    FS_UNROLL for (int i = 0; i < P; i += 3) in.weights[i / 3] = weights + i * step;
    FS_UNROLL for (int i = 0; i < R; i += 3) in.rows[i / 3] = a + i * stride;
    return in;
}

FS_INLINE void fs_read_on(const int P, const int R, int64_t bytes, int64_t columns, fs_reading *in)
{
    FS_UNROLL for (int i = 0; i < P; i += 3)
    {
        in->weights[i / 3] += bytes;
        FS_HIDE(in->weights[i / 3]);
    }
    FS_UNROLL for (int i = 0; i < R; i += 3)
    {
        in->rows[i / 3] += columns;
        FS_HIDE(in->rows[i / 3]);
    }
}

/* acc += column i from here on of P panels times that of R rows */
FS_INLINE void fs_float_column(const int KIND, const int P, const int R, const fs_reading *in, int i,
                               v16 acc[MAX_P][MAX_R])
{
    v16 b[MAX_P];
    FS_EACH_PANEL b[p] = v_weight(KIND, in->weights[p / 3] + p % 3 * in->step, i * FS_LANES);
    FS_EACH_ROW
    {
        v16 c = v_set(in->rows[r / 3][r % 3 * in->stride + i]);
        FS_EACH_PANEL acc[p][r] = v_fma(b[p], c, acc[p][r]);
    }
}

/* What a tile of many rows works on: rows and panels of columns [first, end), of whose sums those of
 * the columns before lie in `sums`, and go back there unless these are the last. */
typedef struct {
    int64_t first, end;
    float *sums; /* [panels][FS_SUM_ROWS][16], from the tile's own panel and row on */
} fs_columns;
#define FS_SUM_ROWS 128
#define FS_SUM_PANELS 12

/* What many rows fetch into the second cache meanwhile: `lines` in four columns, from `next` on `left`
 * lines, then `jump` bytes further others, `more` in all. */
typedef struct {
    const uint8_t *next;
    int64_t left, piece, jump, more, lines;
} fs_fetching;

/* The weights that are next, columns `first` of P panels from `panel` on, while `rows` rows go through
 * those before, ROWS at a time: memory is slower than one tile, but not than all of them. Few rows
 * fetch only their own panels, a little ahead. */
FS_INLINE fs_fetching fs_plan_fetching(const int P, const int ROWS, const fs_matrix *w, const fs_acts *x,
                                       int32_t rows, int32_t panel, int64_t first, int64_t columns)
{
    const int64_t line = w->panel_bytes / w->cols, lines = columns * line / 64, tiles = rows / ROWS;
    fs_fetching f = {w->data + panel * w->panel_bytes + first * line, lines, lines,
                     w->panel_bytes - lines * 64, P * lines, 0};
    if (x->ahead && panel >= x->ahead_end) f.next = x->ahead, f.jump = 0;
    const int64_t turns = tiles * (columns / 4);
    if (tiles > 1 && turns > 0 && lines > 0) f.lines = (f.more + turns - 1) / turns;
    return f;
}

FS_INLINE void fs_float_tile(const int KIND, const int P, const int R, const fs_matrix *w, const fs_acts *x,
                             const fs_out *out, int32_t row, int32_t panel, const fs_columns *columns,
                             fs_fetching *fetching)
{
    enum { AHEAD = 16 }; /* columns */
    const int64_t size = KIND == FS_F32 ? 4 : 2, column = size * FS_LANES, end = columns->end;
    const int64_t lines = fetching->more > 0 ? fetching->lines : 0;
    float *sums = columns->sums;
    int64_t k = columns->first;
    fs_reading in = fs_read_from(P, R, w->data + panel * w->panel_bytes + k * column, w->panel_bytes,
                                 x->f + row * x->f_stride + k, x->f_stride);
    fs_fetching f = *fetching;
    v16 acc[MAX_P][MAX_R];
#define FS_SUMS (sums + (p * FS_SUM_ROWS + r) * FS_LANES)
    FS_EACH_PANEL FS_EACH_ROW acc[p][r] = k ? v_load(FS_SUMS) : v_set(0.0f);
    for (; k + 4 <= end; k += 4) {
        for (int64_t line = 0; line < lines; line++, f.next += 64) {
            v_prefetch_second(f.next);
            if (--f.left == 0) f.next += f.jump, f.left = f.piece;
        }
        FS_NO_UNROLL for (int i = 0; i < 4; i++, fs_read_on(P, R, column, 1, &in))
        {
            FS_EACH_PANEL v_prefetch(in.weights[p / 3] + p % 3 * in.step + AHEAD * column);
            fs_float_column(KIND, P, R, &in, 0, acc);
        }
    }
    fetching->next = f.next, fetching->left = f.left;
    fetching->more -= lines * ((end - columns->first) / 4);
    FS_NO_UNROLL for (; k < end; k++, fs_read_on(P, R, column, 1, &in))
        fs_float_column(KIND, P, R, &in, 0, acc);
    if (end < w->cols) {
        FS_EACH_PANEL FS_EACH_ROW v_store(FS_SUMS, acc[p][r]);
        return;
    }
    FS_EACH_PANEL FS_EACH_ROW fs_put(w, out, row + r, panel + p, acc[p][r]);
#undef FS_SUMS
}

/* P panels with one row: memory is the limit, see fs_prefetching */
FS_INLINE void fs_float_row(const int KIND, const int P, const fs_matrix *w, const fs_acts *x,
                            const fs_out *out, int32_t panel)
{
    enum { R = 1 };
    const int64_t column = (KIND == FS_F32 ? 4 : 2) * FS_LANES;
    const fs_prefetching plan = fs_plan_ahead(P, w, x, panel, w->cols, column);
    fs_reading in = fs_read_from(P, R, w->data + panel * w->panel_bytes, w->panel_bytes, x->f, 0);
    int64_t far = plan.far;
    v16 acc[MAX_P][MAX_R];
    FS_EACH_PANEL acc[p][0] = v_set(0.0f);
    for (int64_t k = 0; k < w->cols; k++, fs_read_on(P, R, column, 1, &in)) {
        if (k == plan.turn) far = plan.behind;
        FS_EACH_PANEL v_prefetch(in.weights[p / 3] + p % 3 * in.step + far);
        fs_float_column(KIND, P, R, &in, 0, acc);
    }
    FS_EACH_PANEL fs_put(w, out, 0, panel + p, acc[p][0]);
}

#define FS_FLOAT_TILE(R)                                                            \
    {                                                                               \
        fs_float_tile(KIND, P, R, w, x, out, row, panel, &columns, &fetching);      \
        columns.sums += (R)*FS_LANES;                                               \
        row += R;                                                                   \
    }
#define FS_FLOAT_REST(k)                    \
    case k: {                               \
        const int R = (k) < ROWS ? (k) : 1; \
        FS_FLOAT_TILE(R)                    \
        break;                              \
    }

/* rows [row, rows) of P panels: whole tiles, then what is left at once, or six of it */
FS_INLINE void fs_float_panels(const int KIND, const int P, const int ROWS, const fs_matrix *w,
                               const fs_acts *x, const fs_out *out, int32_t row, int32_t rows, int32_t panel,
                               fs_columns columns, fs_fetching fetching)
{
    for (; row + ROWS <= rows;) FS_FLOAT_TILE(ROWS)
    while (row < rows) {
        const int32_t left = rows - row;
        switch (left < 6 ? left : 6) {
            FS_FLOAT_REST(1)
            FS_FLOAT_REST(2)
            FS_FLOAT_REST(3)
            FS_FLOAT_REST(4)
            FS_FLOAT_REST(5)
            FS_FLOAT_REST(6)
        }
    }
}

/* Rows [row, rows) of panels [panel, panel_end), some columns after the other: so many that what all
 * panels read of the rows stays in the second cache. */
FS_INLINE void fs_float_group(const int KIND, const int PANELS, const int ROWS, const fs_matrix *w,
                              const fs_acts *x, const fs_out *out, int32_t row, int32_t rows, int32_t panel,
                              int32_t panel_end, int64_t unit, float *sums)
{
    for (int64_t first = 0; first < w->cols; first += unit) {
        const int64_t end = first + unit < w->cols ? first + unit : w->cols, n = end - first;
        fs_columns columns = {first, end, sums};
        for (int32_t i = panel; i < panel_end;) {
            const int P = panel_end - i >= PANELS ? PANELS : 1;
            int32_t next = i + P;
            int64_t from = first;
            if (next >= panel_end) next = end < w->cols ? panel : panel_end, from = end % w->cols;
            if (P == PANELS)
                fs_float_panels(KIND, PANELS, ROWS, w, x, out, row, rows, i, columns,
                                fs_plan_fetching(PANELS, ROWS, w, x, rows - row, next, from, n));
            else
                fs_float_panels(KIND, 1, F_FEW, w, x, out, row, rows, i, columns,
                                fs_plan_fetching(1, F_FEW, w, x, rows - row, next, from, n));
            columns.sums += P * FS_SUM_ROWS * FS_LANES;
            i += P;
        }
    }
}

FS_INLINE void fs_matmul_float(const int KIND, const int PANELS, const int ROWS, const fs_matrix *w,
                               const fs_acts *x, const fs_out *out, int32_t rows, int32_t panel,
                               int32_t panel_end)
{
    enum { MOST = 1024 }; /* columns at once */
    if (rows == 1) {
        for (; panel + F_ONE <= panel_end; panel += F_ONE) fs_float_row(KIND, F_ONE, w, x, out, panel);
        for (; panel < panel_end; panel++) fs_float_row(KIND, 1, w, x, out, panel);
        return;
    }
    const int64_t parts = rows > ROWS ? (w->cols + MOST - 1) / MOST : 1;
    const int64_t unit = parts == 1 ? w->cols : ((w->cols + parts - 1) / parts + 3) & ~3;
    const int32_t many = parts == 1 ? panel_end - panel : FS_SUM_PANELS;
    float sums[FS_SUM_PANELS * FS_SUM_ROWS * FS_LANES];
    for (; panel < panel_end; panel += many) {
        const int32_t end = panel_end - panel > many ? panel + many : panel_end;
        for (int32_t row = 0; row < rows; row += FS_SUM_ROWS)
            fs_float_group(KIND, PANELS, ROWS, w, x, out, row,
                           rows - row > FS_SUM_ROWS ? row + FS_SUM_ROWS : rows, panel, end, unit, sums);
    }
}

static void fs_matmul_f32(const fs_matrix *w, const fs_acts *x, const fs_out *out, int32_t rows,
                          int32_t panel, int32_t panel_end)
{
    fs_matmul_float(FS_F32, F_PANELS, F_ROWS, w, x, out, rows, panel, panel_end);
}

static void fs_matmul_f16(const fs_matrix *w, const fs_acts *x, const fs_out *out, int32_t rows,
                          int32_t panel, int32_t panel_end)
{
    fs_matmul_float(FS_F16, F_PANELS, F_ROWS, w, x, out, rows, panel, panel_end);
}

static void fs_matmul_bf16(const fs_matrix *w, const fs_acts *x, const fs_out *out, int32_t rows,
                           int32_t panel, int32_t panel_end)
{
    fs_matmul_float(FS_BF16, F_PANELS, F_ROWS, w, x, out, rows, panel, panel_end);
}
