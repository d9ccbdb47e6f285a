#include "telling.h"

#include "step.h"

#include <time.h>

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

double fs_uniform(uint64_t seed, int64_t place)
{
    uint64_t z = seed + ((uint64_t)place + 1) * 0x9E3779B97F4A7C15u;
    for (int i = 0; i < 2; i++) {
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
        z ^= z >> 31;
        z += 0x9E3779B97F4A7C15u;
    }
    return (double)(z >> 11) / 9007199254740992.0; /* 2^53 */
}

static int32_t draw(int32_t vocab, fs_telling *t)
{
    const int32_t known = t->known + t->drawn;
    int32_t recent = known;
    if (t->window < 0) recent = 0;
    else if (t->window > 0 && t->window < known) recent = t->window;
    return fs_draw(t->logits, vocab, t->sampling, t->text + known - recent, recent,
                     fs_uniform(t->seed, t->place + t->drawn), 0, t->text + known,
                     t->probability + t->drawn, t->scratch);
}

static int is_end(const fs_telling *t, int32_t id)
{
    for (int32_t i = 0; i < t->n_ends; i++)
        if (t->ends[i] == id) return 1;
    return 0;
}

int32_t fs_tell(fs_model *m, int32_t vocab, fs_telling *t)
{
    const fs_survey survey = fs_survey_new(vocab, t->scratch);
    const double begun = now();
    double before = begun;
    fs_part part = {t->cache, t->text + t->known - t->fresh, t->fresh, t->position};
    t->drawn = 0;
    t->stepped = 0.0;
    do {
        int32_t status = fs_step_surveyed(m, &part, t->logits, &survey);
        if (status != FS_DONE) return status;
        t->stepped += now() - before;
        if (draw(vocab, t)) return FS_NOT_FINITE;
        part = (fs_part){t->cache, part.tokens + part.n, 1, part.position + part.n};
        t->drawn++;
        before = now();
        if (is_end(t, part.tokens[0])) break;
    } while (t->drawn < t->count && before - begun < t->seconds);
    return FS_DONE;
}
