/* The sampler chain: what engine/samplers/chain.py does, in a few passes over the logits.
 *
 * The passes over the whole vocabulary (largest, sum of weights; sampler_passes.h) are float
 * loops that the compiler vectorises, once for every instruction set; sums run in 16 lanes, so
 * every instruction set gives the same bits. Behind a step of one row its threads share them. What is left of the vocabulary is small, and is sorted
 * and summed in double like the Python chain. */

#include "sampler.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sampler_passes.h"

#define BUCKETS 512    /* of 1/8 nat below the largest logit */
#define SORTED_AT_ONCE 1024

typedef struct candidate {
    double logit;
    int32_t id;
} candidate;

typedef struct pool {
    candidate *items; /* [count] */
    int32_t count;
    double beside; /* weight, relative to the largest logit, of what was set aside unsorted */
} pool;

/* ---- selections ---- */

/* Likelier first; ties go to the lower id. */
static int compare(const void *a, const void *b)
{
    const candidate *p = a, *q = b;
    if (p->logit != q->logit) return p->logit > q->logit ? -1 : 1;
    return (p->id > q->id) - (p->id < q->id);
}

static int by_id(const void *a, const void *b)
{
    const candidate *p = a, *q = b;
    return (p->id > q->id) - (p->id < q->id);
}

static void sort(pool *c) { qsort(c->items, (size_t)c->count, sizeof *c->items, compare); }

/* The place of a candidate among all floats, the likeliest first: its logit is one. */
static uint32_t rank_of(const candidate *c)
{
    float logit = (float)c->logit + 0.0f; /* no -0: it is as likely as 0 */
    uint32_t bits;
    memcpy(&bits, &logit, sizeof bits);
    return bits >> 31 ? bits : ~bits & 0x7fffffff;
}

static candidate at_rank(uint32_t rank, int32_t id)
{
    uint32_t bits = rank >> 31 ? rank : ~rank & 0x7fffffff;
    float logit;
    memcpy(&logit, &bits, sizeof logit);
    return (candidate){logit, id};
}

/* As sort(), of candidates whose ties are in the order of ids already: three passes by 11 bits over
 * rank and id in one number. room: [2 * count]. */
static void sort_many(pool *c, uint64_t *room)
{
    enum { BITS = 11, KEYS = 1 << BITS, PASSES = 3 };
    if (c->count < KEYS / 8) {
        sort(c);
        return;
    }
    int32_t end[PASSES][KEYS] = {{0}};
    uint64_t *from = room, *to = room + c->count;
    for (int32_t i = 0; i < c->count; i++) {
        const uint32_t rank = rank_of(c->items + i);
        from[i] = (uint64_t)rank << 32 | (uint32_t)c->items[i].id;
        for (int p = 0; p < PASSES; p++) end[p][rank >> p * BITS & (KEYS - 1)]++;
    }
    for (int p = 0; p < PASSES; p++) {
        int32_t before = 0;
        for (int32_t k = 0; k < KEYS; k++) {
            int32_t count = end[p][k];
            end[p][k] = before;
            before += count;
        }
        for (int32_t i = 0; i < c->count; i++)
            to[end[p][from[i] >> (32 + p * BITS) & (KEYS - 1)]++] = from[i];
        uint64_t *swap = from;
        from = to;
        to = swap;
    }
    for (int32_t i = 0; i < c->count; i++)
        c->items[i] = at_rank((uint32_t)(from[i] >> 32), (int32_t)(uint32_t)from[i]);
}

/* Every token whose logit reaches `least`, in the order of ids; peaks as find_peaks gives them. */
static void collect(const float *x, int32_t n, const float *peaks, float least, pool *c)
{
    int32_t count = 0;
    for (int32_t start = 0; start < n; start += PEAK) {
        if (peaks[start / PEAK] < least) continue;
        if (start + PEAK > n) {
            for (int32_t i = start; i < n; i++)
                if (x[i] >= least) c->items[count++] = (candidate){x[i], i};
            break;
        }
        for (uint64_t mask = reaching(x + start, least); mask; mask &= mask - 1) {
            int32_t i = start + __builtin_ctzll(mask);
            c->items[count++] = (candidate){x[i], i};
        }
    }
    c->count = count;
}

static void sift(candidate *heap, int32_t count, int32_t at)
{
    for (;;) { /* the least likely at the root */
        int32_t child = 2 * at + 1;
        if (child >= count) return;
        if (child + 1 < count && compare(&heap[child + 1], &heap[child]) > 0) child++;
        if (compare(&heap[child], &heap[at]) <= 0) return;
        candidate swap = heap[at];
        heap[at] = heap[child];
        heap[child] = swap;
        at = child;
    }
}

/* The k likeliest of x [n], sorted. */
static void select_best(const float *x, int32_t n, const float *peaks, int32_t k, pool *c)
{
    if (k > n) k = n;
    c->count = k;
    for (int32_t i = 0; i < k; i++) c->items[i] = (candidate){x[i], i};
    for (int32_t i = k / 2 - 1; i >= 0; i--) sift(c->items, k, i);
    for (int32_t i = k; i < n; i++) {
        if (i % PEAK == 0 && peaks[i / PEAK] <= c->items[0].logit) {
            i += PEAK - 1;
            continue;
        }
        if (x[i] > c->items[0].logit) { /* a tie keeps the lower id, which is there already */
            c->items[0] = (candidate){x[i], i};
            sift(c->items, k, 0);
        }
    }
    sort(c);
}

/* Keep what reaches `least`; the rest counts as weight beside. */
static void drop_below(pool *c, float largest, float least)
{
    int32_t kept = 0;
    for (int32_t i = 0; i < c->count; i++) {
        const candidate one = c->items[i];
        if (one.logit < least) c->beside += exp_below((float)(one.logit - largest));
        c->items[kept] = one;
        kept += one.logit >= least;
    }
    c->count = kept;
}

/* A logit that certainly leaves enough for top-p: the end of the bucket in which the share is
 * reached, so that few have to be sorted. */
static float least_for(const pool *c, float largest, double top_p)
{
    double weight[BUCKETS] = {0}, total = c->beside, reached = 0.0;
    for (int32_t i = 0; i < c->count; i++) {
        double below = largest - c->items[i].logit;
        int32_t b = below * 8 < BUCKETS - 1 ? (int32_t)(below * 8) : BUCKETS - 1;
        weight[b] += exp_below((float)-below);
    }
    for (int b = 0; b < BUCKETS; b++) total += weight[b];
    for (int b = 0; b < BUCKETS - 1; b++) {
        reached += weight[b];
        if (reached >= top_p * total * (1 + 1e-5)) return largest - (float)(b + 1) / 8;
    }
    return -INFINITY;
}

/* What top-p and min-p together may keep of x [n]; `total` is the weight of all of x. A few steps
 * down from the largest logit are enough for most texts. */
static void set_aside(const float *x, int32_t n, const float *peaks, float largest, double total,
                      const fs_sampling *s, float *weight, pool *c)
{
    const double enough = s->top_p * total * (1 + 1e-5);
    float least = s->min_p > 0 ? (float)(largest + log(s->min_p)) : -INFINITY;
    double kept;
    for (float step = 4;; step += 2) {
        float from = step <= 32 && largest - step > least ? largest - step : least;
        kept = 0.0;
        collect(x, n, peaks, from, c);
        for (int32_t i = 0; i < c->count; i++) weight[i] = (float)(c->items[i].logit - largest);
        exponentiate_floats(weight, c->count);
        for (int32_t i = 0; i < c->count; i++) kept += weight[i];
        c->beside = kept < total ? total - kept : 0.0;
        if (from == least || kept >= enough) break;
    }
    /* where min-p leaves less than top-p would, all of it stays */
    if (c->count > SORTED_AT_ONCE && kept >= enough) drop_below(c, largest, least_for(c, largest, s->top_p));
}

/* ---- the stages ---- */

/* Four at a time: each has only every fourth to wait for. */
static double largest_of(const pool *c)
{
    double most[4] = {-INFINITY, -INFINITY, -INFINITY, -INFINITY};
    int32_t i = 0;
    for (; i + 4 <= c->count; i += 4)
        for (int k = 0; k < 4; k++)
            most[k] = c->items[i + k].logit > most[k] ? c->items[i + k].logit : most[k];
    for (; i < c->count; i++) most[0] = c->items[i].logit > most[0] ? c->items[i].logit : most[0];
    for (int k = 1; k < 4; k++) most[0] = most[k] > most[0] ? most[k] : most[0];
    return most[0];
}

static double weigh(const pool *c, double *weight)
{
    double largest = largest_of(c), total = 0.0;
    for (int32_t i = 0; i < c->count; i++) weight[i] = c->items[i].logit - largest;
    exponentiate(weight, c->count);
    for (int32_t i = 0; i < c->count; i++) total += weight[i];
    return total;
}

/* Keep those whose surprise is nearest the expected one; they come out as they went in. */
static void typical(pool *c, double typical_p, double *weight)
{
    double total = weigh(c, weight), expected = 0.0, reached = 0.0;
    candidate *by_distance = malloc((size_t)c->count * sizeof *by_distance);
    if (!by_distance) return;
    for (int32_t i = 0; i < c->count; i++) {
        double p = weight[i] / total;
        if (p > 0) expected -= p * log(p);
    }
    for (int32_t i = 0; i < c->count; i++) {
        double p = weight[i] / total;
        double surprise = -log(p > 1e-300 ? p : 1e-300);
        by_distance[i] = (candidate){-fabs(surprise - expected), i};
    }
    qsort(by_distance, (size_t)c->count, sizeof *by_distance, compare);
    int32_t kept = 0;
    while (kept < c->count) {
        reached += weight[by_distance[kept++].id] / total;
        if (reached >= typical_p) break;
    }
    qsort(by_distance, (size_t)kept, sizeof *by_distance, by_id);
    for (int32_t i = 0; i < kept; i++) c->items[i] = c->items[by_distance[i].id];
    c->count = kept;
    free(by_distance);
}

static void top_p(pool *c, double share, double *weight, uint64_t *sorting)
{
    sort_many(c, sorting);
    double total = weigh(c, weight) + c->beside, reached = 0.0;
    for (int32_t i = 0; i < c->count; i++) {
        reached += weight[i] / total;
        if (reached >= share) {
            c->count = i + 1;
            return;
        }
    }
}

static void min_p(pool *c, double share)
{
    double least = largest_of(c) + log(share);
    int32_t kept = 0;
    for (int32_t i = 0; i < c->count; i++)
        if (c->items[i].logit >= least) c->items[kept++] = c->items[i];
    c->count = kept;
}

static int32_t draw(const pool *c, double temperature, double uniform, double *weight)
{
    double largest = largest_of(c), total = 0.0, reached = 0.0;
    for (int32_t i = 0; i < c->count; i++)
        weight[i] = (c->items[i].logit - largest) / temperature;
    exponentiate(weight, c->count);
    for (int32_t i = 0; i < c->count; i++) total += weight[i];
    for (int32_t i = 0; i < c->count; i++) {
        reached += weight[i] / total;
        if (reached > uniform) return c->items[i].id;
    }
    return c->items[c->count - 1].id;
}

/* ---- penalties ---- */

static int by_value(const void *a, const void *b)
{
    int32_t p = *(const int32_t *)a, q = *(const int32_t *)b;
    return (p > q) - (p < q);
}

/* x [vocab] in place, and the peaks it changes; 0 where a logit is not finite any more. */
static int32_t penalise(float *x, int32_t vocab, const fs_sampling *s, const int32_t *recent,
                        int32_t n, float *peaks)
{
    int32_t *sorted = malloc((size_t)n * sizeof *sorted), finite = sorted != NULL;
    if (sorted) memcpy(sorted, recent, (size_t)n * sizeof *sorted);
    if (sorted) qsort(sorted, (size_t)n, sizeof *sorted, by_value);
    for (int32_t i = 0; finite && i < n;) {
        int32_t id = sorted[i], count = 0;
        for (; i < n && sorted[i] == id; i++) count++;
        if (id < 0 || id >= vocab) continue;
        double a = x[id];
        if (s->repetition != 1.0) {
            if (s->power) a *= pow(s->repetition, count);
            else a = a > 0 ? a / s->repetition : a * s->repetition;
        }
        x[id] = (float)(a - s->presence - s->frequency * count);
        int32_t run = id / PEAK * PEAK;
        finite = find_peaks(x + run, vocab - run < PEAK ? vocab - run : PEAK, peaks + id / PEAK);
    }
    free(sorted);
    return finite;
}

/* ---- scratch ---- */

typedef struct scratch {
    float *x;         /* [vocab] penalised logits */
    candidate *items; /* [vocab] */
    uint64_t *sorting; /* [2 * vocab] */
    double *weight;   /* [vocab] */
    fs_survey survey;
} scratch;

static int32_t count_runs(int32_t vocab) { return (vocab + RUN - 1) / RUN; }

int64_t fs_sample_scratch(int32_t vocab)
{
    const int64_t of_one = sizeof(candidate) + 2 * sizeof(uint64_t) + sizeof(double) + sizeof(float);
    const int64_t of_run = sizeof(double) + sizeof(float) * (1 + RUN / PEAK);
    return vocab * of_one + count_runs(vocab) * of_run;
}

static scratch lay_out(void *memory, int32_t vocab)
{
    scratch s;
    s.items = memory;
    s.sorting = (uint64_t *)(s.items + vocab);
    s.weight = (double *)(s.sorting + 2 * (int64_t)vocab);
    s.survey.vocab = vocab;
    s.survey.runs = count_runs(vocab);
    s.survey.sums = s.weight + vocab;
    s.survey.best = (float *)(s.survey.sums + s.survey.runs);
    s.survey.peaks = s.survey.best + s.survey.runs;
    s.x = s.survey.peaks + s.survey.runs * (RUN / PEAK);
    return s;
}

/* ---- what is asked of all logits ---- */

fs_survey fs_survey_new(int32_t vocab, void *memory) { return lay_out(memory, vocab).survey; }

static int32_t end_of(int32_t run, int32_t vocab) { return run * RUN < vocab ? run * RUN : vocab; }

void fs_survey_look(const fs_survey *s, const float *x, int32_t begin, int32_t end)
{
    for (int32_t run = begin; run < end; run++) {
        const int32_t start = run * RUN, n = end_of(run + 1, s->vocab) - start;
        float *peaks = s->peaks + start / PEAK;
        s->best[run] = find_peaks(x + start, n, peaks) ? find_largest(peaks, (n + PEAK - 1) / PEAK) : NAN;
    }
}

void fs_survey_sum(const fs_survey *s, const float *x, int32_t begin, int32_t end)
{
    const int32_t start = begin * RUN;
    sum_runs(x + start, end_of(end, s->vocab) - start, find_largest(s->best, s->runs), s->sums + begin);
}

static int32_t is_finite(const fs_survey *s)
{
    int32_t odd = 0;
    for (int32_t run = 0; run < s->runs; run++) odd |= isnan(s->best[run]);
    return !odd;
}

static double total_of(const fs_survey *s)
{
    double total = 0.0;
    for (int32_t run = 0; run < s->runs; run++) total += s->sums[run];
    return total;
}

/* ---- the chain ---- */

static int32_t choose(const float *x, int32_t vocab, float largest, double total,
                      const fs_sampling *s, double uniform, const scratch *room)
{
    pool c = {room->items, 0, 0.0};
    if (s->temperature == 0.0) {
        int32_t i = 0;
        while (room->survey.peaks[i / PEAK] < largest) i += PEAK;
        while (x[i] != largest) i++;
        return i;
    }
    if (s->top_k > 0 && s->top_k < vocab)
        select_best(x, vocab, room->survey.peaks, s->top_k, &c);
    else if (s->typical_p >= 1.0 && s->top_p < 1.0)
        set_aside(x, vocab, room->survey.peaks, largest, total, s, (float *)room->weight, &c);
    else
        collect(x, vocab, room->survey.peaks, -INFINITY, &c);
    if (s->typical_p < 1.0) typical(&c, s->typical_p, room->weight);
    if (s->top_p < 1.0) top_p(&c, s->top_p, room->weight, room->sorting);
    if (s->min_p > 0.0) min_p(&c, s->min_p);
    return draw(&c, s->temperature, uniform, room->weight);
}

int32_t fs_draw(const float *logits, int32_t vocab, const fs_sampling *s, const int32_t *recent,
                int32_t n_recent, double uniform, int32_t alternatives, int32_t *out_ids, double *out_p,
                void *memory)
{
    const scratch room = lay_out(memory, vocab);
    float *peaks = room.survey.peaks;
    if (!is_finite(&room.survey)) return -1;
    const float own_largest = find_largest(room.survey.best, room.survey.runs);
    const double own_total = total_of(&room.survey);
    if (alternatives > 0) {
        pool best = {room.items, 0, 0.0};
        select_best(logits, vocab, peaks, alternatives, &best);
        for (int32_t i = 0; i < best.count; i++) {
            out_ids[1 + i] = best.items[i].id;
            out_p[1 + i] = exp(best.items[i].logit - own_largest) / own_total;
        }
    }
    const float *x = logits;
    float largest = own_largest;
    double total = own_total;
    if (n_recent) {
        memcpy(room.x, logits, (size_t)vocab * sizeof *room.x);
        if (!penalise(room.x, vocab, s, recent, n_recent, peaks)) return -1;
        x = room.x;
        largest = find_largest(peaks, (vocab + PEAK - 1) / PEAK);
        if (s->top_k <= 0) { /* set_aside asks for it */
            sum_runs(x, vocab, largest, room.survey.sums);
            total = total_of(&room.survey);
        }
    }
    int32_t id = choose(x, vocab, largest, total, s, uniform, &room);
    out_ids[0] = id;
    out_p[0] = exp((double)logits[id] - own_largest) / own_total;
    return 0;
}

int32_t fs_sample(const float *logits, int32_t vocab, const fs_sampling *s, const int32_t *recent,
                  int32_t n_recent, double uniform, int32_t alternatives, int32_t *out_ids,
                  double *out_p, void *memory)
{
    const fs_survey survey = fs_survey_new(vocab, memory);
    fs_survey_look(&survey, logits, 0, survey.runs);
    fs_survey_sum(&survey, logits, 0, survey.runs);
    return fs_draw(logits, vocab, s, recent, n_recent, uniform, alternatives, out_ids, out_p, memory);
}
