/* Whether a step of one row is better off with one thread: on a busy machine a thread that loses its
 * core holds up the others. Results do not depend on it, so it may change from step to step. */
#ifndef FS_GOVERNOR_H
#define FS_GOVERNOR_H

#include <stdint.h>

/* cffi begins */

/* ---- one thread or all ---- */
typedef struct fs_governor {
    double mean[2];  /* nanoseconds of a step: [0] with all threads, [1] with one; 0 = never tried */
    double best;     /* lowest mean with all threads, forgotten slowly */
    int32_t alone;   /* 1 = one thread is the better choice now */
    int32_t trial;   /* steps left of a trial of the other choice */
    int32_t steps;   /* since the last trial */
    int32_t patience; /* alone: steps until all threads are tried again */
} fs_governor;

int32_t fs_governor_alone(const fs_governor *governor); /* whether the next step takes one thread */
void fs_governor_tell(fs_governor *governor, int32_t alone, double nanoseconds);

/* cffi ends */

#endif
