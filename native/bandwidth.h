/* Reading memory as fast as the machine does: what the speed of a decode step is held against. */
#ifndef FS_BANDWIDTH_H
#define FS_BANDWIDTH_H

#include <stdint.h>

/* cffi begins */

/* ---- measuring ---- */
/* Every whole cache line of `memory`, `passes` times, by `threads` threads, each its own part. The
 * result is a sum of what was read, so that no compiler leaves the reading out. */
uint64_t fs_read_memory(const void *memory, int64_t nbytes, int32_t threads, int32_t passes);

/* cffi ends */

#endif
