#include "governor.h"

enum {
    TRIAL = 4,    /* steps that try the other choice: 0.6% of a quiet machine's time */
    PERIOD = 512, /* steps between trials */
    SUSPECT = 32, /* between trials while steps take much longer than they did */
    BACK = 64,    /* between trials of all threads again */
    HASTE = 8     /* before the first of them, then twice as long each time: one very slow step, behind a
                   * pause perhaps, is soon seen for what it was */
};

int32_t fs_governor_alone(const fs_governor *g)
{
    return g->trial > 0 ? !g->alone : g->alone;
}

static int due(const fs_governor *g)
{
    if (g->alone) return g->steps >= g->patience;
    return g->steps >= PERIOD || (g->steps >= SUSPECT && g->mean[0] > 1.4 * g->best);
}

void fs_governor_tell(fs_governor *g, int32_t alone, double nanoseconds)
{
    double *mean = &g->mean[alone != 0];
    *mean = *mean == 0 ? nanoseconds : *mean + (nanoseconds - *mean) / (g->trial ? 4 : 16);
    if (!alone) {
        g->best *= 1.0005; /* a longer context is slower for good */
        if (g->best == 0 || *mean < g->best) g->best = *mean;
    }
    if (g->trial > 0) {
        if (--g->trial > 0) return;
        if (!g->alone && g->mean[0] > 1.1 * g->mean[1]) g->alone = 1, g->patience = HASTE;
        else if (g->alone && g->mean[0] < 0.95 * g->mean[1]) g->alone = 0;
        else if (g->alone && g->patience < BACK) g->patience *= 2;
        g->steps = 0;
    } else if (++g->steps, due(g)) {
        g->trial = TRIAL;
    }
}
