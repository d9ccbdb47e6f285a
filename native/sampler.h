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

/* What a draw asks of all logits, run by run, so that several threads can answer a part each; what
 * it comes to does not depend on who does which. In the scratch of fs_sample. */
typedef struct fs_survey {
    int32_t vocab, runs;
    float *peaks; /* largest of each few logits */
    float *best;  /* [runs] largest of a run; no number where a logit is not finite */
    double *sums; /* [runs] of e^(logit - largest of all) */
} fs_survey;

fs_survey fs_survey_new(int32_t vocab, void *scratch);
/* First every run's largest, */
void fs_survey_look(const fs_survey *survey, const float *logits, int32_t begin, int32_t end);
/* then, when all of those are there, every run's sum. */
void fs_survey_sum(const fs_survey *survey, const float *logits, int32_t begin, int32_t end);
/* As fs_sample, of logits that have been surveyed. */
int32_t fs_draw(const float *logits, int32_t vocab, const fs_sampling *sampling, const int32_t *recent,
                int32_t n_recent, double uniform, int32_t alternatives, int32_t *out_ids, double *out_p,
                void *scratch);

#endif
