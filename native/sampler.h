/* The sampler chain in C: engine/samplers/chain.py says what each number means. */
#ifndef FS_SAMPLER_H
#define FS_SAMPLER_H

#include <stdint.h>

/* cffi begins */

/* ---- the sampler chain ---- */
typedef struct fs_sampling {
    double temperature, top_p, min_p, typical_p;
    double repetition, presence, frequency; /* penalties */
    int32_t top_k;
    int32_t power; /* the repetition penalty's form: 1 = logit * penalty ** count */
} fs_sampling;

/* Bytes of scratch that fs_sample needs for a vocabulary. */
int64_t fs_sample_scratch(int32_t vocab);
/* Draws one of `vocab` tokens. logits: [vocab]; recent: [n_recent] ids the penalties look at;
 * uniform: the random number in [0, 1). out_ids and out_p: [1 + alternatives], the drawn token and
 * the likeliest ones with the model's own probabilities. 0, or -1 where a logit is not finite. */
int32_t fs_sample(const float *logits, int32_t vocab, const fs_sampling *sampling,
                  const int32_t *recent, int32_t n_recent, double uniform, int32_t alternatives,
                  int32_t *out_ids, double *out_p, void *scratch);

/* cffi ends */

#endif
