/* Attention over the pages of a cache; a part of kernels_body.h. */

/* ---- attention: lane = position for the scores, lane = element for the values ----
 *
 * Pages one after the other, all queries with each. A score is one chain over the elements, an output
 * one chain over the positions: neither depends on the queries beside it, nor on whether a page was
 * turned into floats once for all of them (many queries) or is where it is read (few). */

/* 16 numbers of a cache from `index` on, as the floats that they stand for */
FS_INLINE v16 v_cached(const int KIND, const char *p, int64_t index, v16 scale)
{
    if (KIND == FS_KV_F32) return v_load((const float *)p + index);
    if (KIND == FS_KV_F16) return v_half((const uint16_t *)p + index);
    return v_mul(v_from_i8((const int8_t *)p + index), scale);
}

/* FROM is the kind of the cache, KIND that of what is read: floats where a page was turned into them.
 * bytes of `n` numbers of a cache: */
FS_INLINE int64_t fs_cached_bytes(const int KIND, int64_t n)
{
    return KIND == FS_KV_F32 ? 4 * n : KIND == FS_KV_F16 ? 2 * n : n;
}

FS_INLINE void fs_fetch(const char *p, int64_t bytes)
{
    FS_UNROLL for (int64_t i = 0; i < bytes; i += 64) v_prefetch_second(p + i);
}

/* scores of N queries with B blocks of a page's keys; ahead: where to fetch as much from meanwhile */
FS_INLINE void fs_score_tile(const int KIND, const int FROM, const int N, const int B, const fs_attend *a,
                             const char *keys, const char *ahead, int32_t query, int32_t block,
                             float *scores)
{
    const int64_t dim = a->head_dim, groups = (dim + FS_BLOCK - 1) / FS_BLOCK;
    const int64_t unit = KIND == FS_KV_Q8 ? FS_BLOCK : dim;
    const float *scales = (const float *)(keys + FS_PAGE * dim) + block * groups * FS_LANES;
    const float *q = a->q + query * dim;
    const int64_t index = block * dim * FS_LANES;
    v16 acc[A_MANY][A_ALONE], s[A_ALONE];
    FS_UNROLL for (int i = 0; i < N; i++)
        FS_UNROLL for (int b = 0; b < B; b++) acc[i][b] = v_set(0.0f);
    for (int64_t first = 0; first < dim; first += unit, scales += FS_LANES) {
        const int64_t end = first + unit < dim ? first + unit : dim;
        FS_UNROLL for (int b = 0; b < B; b++)
            s[b] = KIND == FS_KV_Q8 ? v_load(scales + b * groups * FS_LANES) : v_set(1.0f);
        for (int64_t d = first; d < end; d++) {
            v16 k[A_ALONE];
            if (ahead)
                fs_fetch(ahead + fs_cached_bytes(FROM, d * FS_PAGE), fs_cached_bytes(FROM, FS_PAGE));
            FS_UNROLL for (int b = 0; b < B; b++)
                k[b] = v_cached(KIND, keys, index + (b * dim + d) * FS_LANES, s[b]);
            FS_UNROLL for (int i = 0; i < N; i++) {
                v16 c = v_set(q[i * dim + d]);
                FS_UNROLL for (int b = 0; b < B; b++) acc[i][b] = v_fma(k[b], c, acc[i][b]);
            }
        }
    }
    v16 scale = v_set(a->scale);
    scores += query * a->score_stride + block * FS_LANES;
    FS_UNROLL for (int i = 0; i < N; i++)
        FS_UNROLL for (int b = 0; b < B; b++)
            v_store(scores + i * a->score_stride + b * FS_LANES, v_mul(acc[i][b], scale));
}

/* of N queries: those blocks of a page of which the last of them sees something */
FS_INLINE void fs_score_page(const int KIND, const int FROM, const int N, const fs_attend *a, const char *keys,
                             const char *ahead, int32_t query, int64_t start)
{
    const int64_t seen = a->length[query + N - 1] - start;
    const int32_t blocks = (int32_t)((seen < FS_PAGE ? seen + FS_LANES - 1 : FS_PAGE) / FS_LANES);
    const int B = N == 1 ? A_ALONE : A_BLOCKS;
    float *scores = a->scores + start;
    int32_t block = 0;
    for (; block + B <= blocks; block += B, ahead = NULL)
        fs_score_tile(KIND, FROM, N, B, a, keys, ahead, query, block, scores);
    if (B > 3 && blocks - block == 3) {
        fs_score_tile(KIND, FROM, N, B > 3 ? 3 : 1, a, keys, ahead, query, block, scores);
        return;
    }
    if (B > 2 && blocks - block == 2) {
        fs_score_tile(KIND, FROM, N, B > 2 ? 2 : 1, a, keys, ahead, query, block, scores);
        return;
    }
    for (; block < blocks; block++, ahead = NULL)
        fs_score_tile(KIND, FROM, N, 1, a, keys, ahead, query, block, scores);
}

/* Lanes of a, a vector of scores from t on, that lie in [begin, length); the others of b. */
FS_INLINE v16 v_within(v16 a, v16 b, int32_t t, int32_t begin, int32_t length)
{
    if (t < begin) a = v_keep_n(b, a, begin - t);
    return length - t < FS_LANES ? v_keep_n(a, b, length - t) : a;
}

/* Of a page's scores that a query sees the largest, lane by lane and beside those before it, into
 * a->most; before that the soft cap. */
FS_INLINE void fs_note_most(const fs_attend *a, int32_t query, int64_t start)
{
    float *scores = a->scores + query * a->score_stride + start;
    const int32_t begin = (int32_t)(a->begin[query] - start), length = (int32_t)(a->length[query] - start);
    const v16 low = v_set(-3.4e38f);
    v16 most = v_load(a->most + query * FS_LANES);
    if (begin <= 0 && length >= FS_PAGE && a->softcap == 0.0f) {
        v16 other = v_max(v_load(scores + 2 * FS_LANES), v_load(scores + 3 * FS_LANES));
        most = v_max(v_max(most, v_load(scores)), v_max(v_load(scores + FS_LANES), other));
    } else {
        for (int32_t t = 0; t < FS_PAGE && t < length; t += FS_LANES) {
            v16 s = v_load(scores + t);
            if (a->softcap != 0.0f) s = v_softcap(s, v_set(a->softcap));
            v_store(scores + t, s);
            if (t + FS_LANES > begin) most = v_max(most, v_within(s, low, t, begin, length));
        }
    }
    v_store(a->most + query * FS_LANES, most);
}

/* scores [begin, length) -> e^(score - most), in place, others of their pages before them -> 0;
 * returns 1 / their sum. */
FS_INLINE float fs_softmax_within(float *scores, int32_t begin, int32_t length, v16 most)
{
    const v16 low = v_set(-87.0f), zero = v_set(0.0f);
    v16 sum = zero;
    for (int32_t page = begin / FS_PAGE * FS_PAGE; page < length; page += FS_PAGE) {
        if (page >= begin && page + FS_PAGE <= length) {
            FS_UNROLL for (int t = 0; t < FS_PAGE; t += FS_LANES)
            {
                v16 e = v_exp_within(v_max(v_sub(v_load(scores + page + t), most), low));
                v_store(scores + page + t, e);
                sum = v_add(sum, e);
            }
            continue;
        }
        for (int32_t t = page; t < page + FS_PAGE && t < length; t += FS_LANES) {
            v16 e = v_exp_within(v_max(v_sub(v_load(scores + t), most), low));
            e = t + FS_LANES <= begin ? zero : v_within(e, zero, t, begin, length);
            v_store(scores + t, e);
            sum = v_add(sum, e);
        }
    }
    return 1.0f / v_sum(sum);
}

static float fs_softmax(float *x, int32_t width)
{
    v16 most = v_set(-3.4e38f);
    for (int32_t t = 0; t < width; t += FS_LANES)
        most = v_max(most, v_within(v_load(x + t), most, t, 0, width));
    return fs_softmax_within(x, 0, width, v_set(v_hmax(most)));
}

/* adds a page's values to C vectors of elements of N queries */
FS_INLINE void fs_value_tile(const int KIND, const int FROM, const int N, const int C, const fs_attend *a,
                             const char *values, const char *ahead, int32_t query, int32_t element,
                             int64_t start)
{
    const int64_t width = a->value_width, groups = (a->head_dim + FS_BLOCK - 1) / FS_BLOCK;
    const float *scales = (const float *)(values + FS_PAGE * width);
    const float *p = a->scores + query * a->score_stride + start;
    float *out = a->out + query * width + element;
    v16 acc[A_MANY][A_ALONE];
#define FS_VALUE(t, c)                                                                          \
    v_cached(KIND, values, (t) * width + element + (c) * FS_LANES,                              \
             KIND == FS_KV_Q8 ? v_set(scales[(t) * groups + (element / FS_LANES + (c)) / 2])    \
                              : v_set(1.0f))
    FS_UNROLL for (int i = 0; i < N; i++)
        FS_UNROLL for (int c = 0; c < C; c++) acc[i][c] = v_load(out + i * width + c * FS_LANES);
    int64_t common = a->length[query] - start, t = 0;
    if (common > FS_PAGE) common = FS_PAGE;
    for (; t < common; t++) {
        v16 v[A_ALONE];
        if (ahead)
            fs_fetch(ahead + fs_cached_bytes(FROM, t * width + element), fs_cached_bytes(FROM, C * FS_LANES));
        FS_UNROLL for (int c = 0; c < C; c++) v[c] = FS_VALUE(t, c);
        FS_UNROLL for (int i = 0; i < N; i++) {
            v16 s = v_set(p[i * a->score_stride + t]);
            FS_UNROLL for (int c = 0; c < C; c++) acc[i][c] = v_fma(s, v[c], acc[i][c]);
        }
    }
    int64_t end = a->length[query + N - 1] - start;
    if (end > FS_PAGE) end = FS_PAGE;
    for (; t < end; t++) { /* what not all of them see */
        v16 v[A_ALONE];
        FS_UNROLL for (int c = 0; c < C; c++) v[c] = FS_VALUE(t, c);
        FS_UNROLL for (int i = 1; i < N; i++) {
            if (start + t >= a->length[query + i]) continue;
            v16 s = v_set(p[i * a->score_stride + t]);
            FS_UNROLL for (int c = 0; c < C; c++) acc[i][c] = v_fma(s, v[c], acc[i][c]);
        }
    }
    FS_UNROLL for (int i = 0; i < N; i++)
        FS_UNROLL for (int c = 0; c < C; c++) v_store(out + i * width + c * FS_LANES, acc[i][c]);
#undef FS_VALUE
}

FS_INLINE void fs_value_page(const int KIND, const int FROM, const int N, const fs_attend *a, const char *values,
                             const char *ahead, int32_t query, int64_t start)
{
    const int C = N == 1 ? A_ALONE : A_WIDE;
    int32_t element = 0, width = a->value_width;
    for (; element + C * FS_LANES <= width; element += C * FS_LANES)
        fs_value_tile(KIND, FROM, N, C, a, values, ahead, query, element, start);
    if (C > 3 && element + 3 * FS_LANES == width) { /* heads of 48 */
        fs_value_tile(KIND, FROM, N, C > 3 ? 3 : 1, a, values, ahead, query, element, start);
        return;
    }
    for (; element < width; element += FS_LANES)
        fs_value_tile(KIND, FROM, N, 1, a, values, ahead, query, element, start);
}

/* a page's keys or values as floats, into the scratch */
FS_INLINE void fs_unpack_keys(const int KIND, const fs_attend *a, const char *keys, int64_t seen)
{
    const int64_t dim = a->head_dim, groups = (dim + FS_BLOCK - 1) / FS_BLOCK;
    const float *scales = (const float *)(keys + FS_PAGE * dim);
    for (int64_t b = 0; b * FS_LANES < seen; b++)
        for (int64_t d = 0; d < dim; d++) {
            const float *s = scales + (b * groups + d / FS_BLOCK) * FS_LANES;
            v16 scale = KIND == FS_KV_Q8 ? v_load(s) : v_set(1.0f);
            int64_t index = (b * dim + d) * FS_LANES;
            v_store(a->page + index, v_cached(KIND, keys, index, scale));
        }
}

FS_INLINE void fs_unpack_values(const int KIND, const fs_attend *a, const char *values, int64_t seen)
{
    const int64_t width = a->value_width, groups = (a->head_dim + FS_BLOCK - 1) / FS_BLOCK;
    const float *scales = (const float *)(values + FS_PAGE * width);
    for (int64_t t = 0; t < seen; t++)
        for (int64_t i = 0; i < width; i += FS_LANES) {
            float s = KIND == FS_KV_Q8 ? scales[t * groups + i / FS_BLOCK] : 1.0f;
            v_store(a->page + t * width + i, v_cached(KIND, values, t * width + i, v_set(s)));
        }
}

/* the first fetches ahead */
#define FS_QUERY_TILES(page, KIND, FROM, data)                                                   \
    for (const char *next = ahead; i < end; next = NULL) {                                      \
        const int32_t left = end - i;                                                           \
        if (left >= A_MANY) page(KIND, FROM, A_MANY, a, data, next, i, start), i += A_MANY;           \
        else if (left >= A_FEW) page(KIND, FROM, A_FEW, a, data, next, i, start), i += A_FEW;         \
        else page(KIND, FROM, 1, a, data, next, i, start), i++;                                       \
    }

/* how many queries see something before `position`; the first of all sees the least */
FS_INLINE int32_t fs_queries_before(const fs_attend *a, int64_t position)
{
    int32_t n = a->queries;
    while (n && a->begin[n - 1] >= position) n--;
    return n;
}

/* BARE: pages are read where they are */
FS_INLINE void fs_attend_kind(const int KIND, const int BARE, const fs_attend *a)
{
    const int64_t last = a->length[a->queries - 1], width = a->value_width;
    float inverse[FS_QUERIES];
    const int64_t begin = a->begin[0] / FS_PAGE * FS_PAGE;
    int32_t i = 0; /* queries [i, end) see something of the page */
    for (int32_t n = 0; n < a->queries; n++) v_store(a->most + n * FS_LANES, v_set(-3.4e38f));
    for (int64_t start = begin; start < last; start += FS_PAGE) {
        const char *keys = a->pages[start / FS_PAGE] + a->keys;
        const char *ahead = start + FS_PAGE < last ? a->pages[start / FS_PAGE + 1] + a->keys
                                                   : a->pages[begin / FS_PAGE] + a->values;
        const int32_t first = i, end = fs_queries_before(a, start + FS_PAGE);
        if (!BARE) fs_unpack_keys(KIND, a, keys, last - start < FS_PAGE ? last - start : FS_PAGE);
        if (BARE) {
            FS_QUERY_TILES(fs_score_page, KIND, KIND, keys)
        } else {
            FS_QUERY_TILES(fs_score_page, FS_KV_F32, KIND, (const char *)a->page)
        }
        for (i = first; i < end; i++) fs_note_most(a, i, start);
        for (i = first; i < end && a->length[i] <= start + FS_PAGE;) i++;
    }
    for (i = 0; i < a->queries; i++) {
        inverse[i] = fs_softmax_within(a->scores + i * a->score_stride, a->begin[i], a->length[i],
                                       v_set(v_hmax(v_load(a->most + i * FS_LANES))));
        for (int64_t e = 0; e < width; e += FS_LANES) {
            v_store(a->out + i * width + e, v_set(0.0f));
            v_prefetch(a->to[i] + e);
            v_prefetch_second(a->next[i] + e);
        }
    }
    i = 0;
    for (int64_t start = begin; start < last; start += FS_PAGE) {
        const char *values = a->pages[start / FS_PAGE] + a->values;
        const char *ahead = start + FS_PAGE < last ? a->pages[start / FS_PAGE + 1] + a->values : NULL;
        const int32_t first = i, end = fs_queries_before(a, start + FS_PAGE);
        if (!BARE) fs_unpack_values(KIND, a, values, last - start < FS_PAGE ? last - start : FS_PAGE);
        if (BARE) {
            FS_QUERY_TILES(fs_value_page, KIND, KIND, values)
        } else {
            FS_QUERY_TILES(fs_value_page, FS_KV_F32, KIND, (const char *)a->page)
        }
        for (i = first; i < end && a->length[i] <= start + FS_PAGE;) i++;
    }
    for (i = 0; i < a->queries; i++)
        for (int32_t e = 0; e < a->head_dim; e += FS_LANES) {
            v16 out = v_mul(v_load(a->out + i * width + e), v_set(inverse[i]));
            if (a->head_dim - e >= FS_LANES) v_store(a->to[i] + e, out);
            else v_store_n(a->to[i] + e, out, a->head_dim - e);
        }
}

static void fs_attend_queries(const fs_attend *a)
{
    const int many = a->queries >= 2 * A_MANY;
    switch (a->kind) {
    case FS_KV_F32: fs_attend_kind(FS_KV_F32, 1, a); break;
    case FS_KV_F16:
        if (many)
            fs_attend_kind(FS_KV_F16, 0, a);
        else
            fs_attend_kind(FS_KV_F16, 1, a);
        break;
    default:
        if (many)
            fs_attend_kind(FS_KV_Q8, 0, a);
        else
            fs_attend_kind(FS_KV_Q8, 1, a);
    }
}
