/* The threads of a step: where they meet, and how they share an operation's pieces. */
#define _GNU_SOURCE
#include <time.h>

#if defined(__unix__) || defined(__APPLE__)
#include <sched.h>
#endif

#include "step.h"

enum { SPINS = 300 };     /* pauses before a waiting thread gives its core away */
enum { LINE = 64 };

int64_t fs_nanoseconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void relax(int spins)
{
    if (spins < SPINS) {
#if defined(FS_X86)
        __asm__ volatile("pause");
#elif defined(__aarch64__)
        __asm__ volatile("yield");
#endif
        return;
    }
#if defined(__unix__) || defined(__APPLE__)
    sched_yield();
#endif
}

/* Who waits reads what it will need next into its cache. */
static void wait_a_moment(fs_seat *mine, int spins)
{
    if (mine->ahead == mine->ahead_end) {
        relax(spins);
        return;
    }
    __builtin_prefetch(mine->ahead, 0, 2);
    mine->ahead += LINE;
}

/* In each round a thread tells one twice as far away as in the round before what it has heard so
 * far; when all rounds are over, everybody has heard of everybody. No number is written by two, and
 * two threads exchange one cache line each. Each other meeting has numbers of its own, since some may
 * be at the next one while others have not yet looked. */
int fs_meet(const fs_worker *w)
{
    fs_run *run = w->run;
    fs_seat *mine = &run->model->seats[w->index];
    const uint32_t meeting = ++mine->meeting & INT32_MAX;
    uint32_t stop = fs_aborted(w) != 0;
    if (w->count > 1) {
        int64_t start = run->model->profile && w->index == 0 ? fs_nanoseconds() : 0;
        for (int32_t round = 0, far = 1; far < w->count; round++, far *= 2) {
            fs_seat *other = &run->model->seats[(w->index + far) % w->count];
            atomic_store_explicit(&other->told[meeting % 2][round], meeting << 1 | stop,
                                  memory_order_release);
            uint32_t told;
            for (int i = 0; (told = atomic_load_explicit(&mine->told[meeting % 2][round],
                                                         memory_order_acquire)) >> 1 != meeting; i++)
                wait_a_moment(mine, i);
            stop |= told & 1;
        }
        if (start) run->model->spent[FS_WAITING] += fs_nanoseconds() - start;
    }
    if (stop && w->index == 0) run->stop = 1;
    return (int)stop;
}

int32_t fs_next_task(const fs_worker *w)
{
    const fs_model *m = w->run->model;
    const uint64_t meeting = m->seats[w->index].meeting;
    _Atomic uint64_t *next = &w->run->next;
    uint64_t old = atomic_load_explicit(next, memory_order_relaxed), now;
    do
        now = old >> 32 == meeting ? old : meeting << 32;
    while (!atomic_compare_exchange_weak_explicit(next, &old, now + 1, memory_order_relaxed,
                                                  memory_order_relaxed));
    return (int32_t)(now & INT32_MAX);
}

/* Of what is left of thread `whose` share of n about a half, in whole `least`: from the front for the
 * thread itself, from the back for others. */
static int take(const fs_worker *w, int32_t whose, int32_t n, int32_t least, fs_pieces *pieces)
{
    const fs_model *m = w->run->model;
    const uint64_t meeting = m->seats[w->index].meeting;
    const fs_worker owner = {w->run, whose, w->count, w->rows, 0, 0};
    const int own = whose == w->index;
    _Atomic uint64_t *taken = &m->seats[whose].taken;
    uint64_t old = atomic_load_explicit(taken, memory_order_relaxed), now;
    int32_t begin, end, first, last, count;
    fs_share(&owner, n, &begin, &end);
    do {
        now = old >> 32 == meeting ? old : meeting << 32;
        first = begin + (int32_t)(now >> 16 & 0xffff);
        last = end - (int32_t)(now & 0xffff);
        if (first >= last) return 0;
        count = (int32_t)fs_round_up((last - first + 1) / 2, least);
        if (count > last - first) count = last - first;
    } while (!atomic_compare_exchange_weak_explicit(taken, &old, now + ((uint64_t)count << (own ? 16 : 0)),
                                                    memory_order_relaxed, memory_order_relaxed));
    pieces->begin = own ? first : last - count;
    pieces->end = pieces->begin + count;
    pieces->more = own && pieces->end < last;
    return 1;
}

int fs_take(const fs_worker *w, int32_t n, int32_t least, fs_pieces *pieces)
{
    for (int32_t i = 0; i < w->count; i++)
        if (take(w, (w->index + i) % w->count, n, least, pieces)) return 1;
    return 0;
}
