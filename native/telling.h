/* Several tokens in one call, so that who calls is not asked between them. */
#ifndef FS_TELLING_H
#define FS_TELLING_H

#include <stdint.h>

#include "fireside.h"
#include "sampler.h"

/* cffi begins */

/* ---- telling: a step and a draw, again and again ---- */
typedef struct fs_telling {
    fs_cache *cache;
    int32_t *text;      /* [known + count] ids; those that are drawn come behind the known ones */
    int32_t known;      /* at least one */
    int32_t fresh;      /* of these the last so many, at least one, are not in the cache yet */
    int32_t count;      /* to draw, at most */
    int32_t position;   /* in the cache, of the first fresh one */
    int32_t window;     /* ids that the penalties look at: the last so many; 0: all, -1: none */
    int64_t place;      /* in the whole text, of the first to be drawn */
    uint64_t seed;
    double seconds;     /* after which it ends */
    const fs_sampling *sampling;
    const int32_t *ends; /* [n_ends] ids that end a text */
    int32_t n_ends;
    float *logits;      /* [vocab] those of the last step */
    double *probability; /* [count] the model's own, of what was drawn */
    void *scratch;      /* of fs_sample */
    int32_t drawn;      /* out: how many */
    double stepped;     /* out: seconds of all steps together */
} fs_telling;

enum { FS_NOT_FINITE = 16 }; /* a logit; beside the results of fs_step */
/* Computes the fresh tokens, draws the next, and so on: `count` times, or until an id of `ends`
 * was drawn or the time is over. What was drawn before a failure holds. */
int32_t fs_tell(fs_model *model, int32_t vocab, fs_telling *telling);
/* A number in [0, 1) from (seed, place): the one of samplers/chain.py. */
double fs_uniform(uint64_t seed, int64_t place);

/* cffi ends */

#endif
