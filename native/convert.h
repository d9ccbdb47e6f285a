/* From one type of a file into another: see convert.c. */
#ifndef FS_CONVERT_H
#define FS_CONVERT_H

#include <stdint.h>

/* cffi begins */

/* `count` weights of type `from` (FS_FROM_...), whole blocks, as the blocks of type `to` that
 * engine/blocks/ makes of them: `out`. They are at `source`, or where that is NULL in the open `file`
 * at `offset`. 0; FS_PACK_BAD where the types or sizes do not go together; FS_PACK_SHORT where the
 * file ends before; else an errno. */
int32_t fs_convert(int32_t isa, int32_t from, int32_t to, int64_t count, const void *source,
                   int32_t file, int64_t offset, void *out);

/* cffi ends */

#endif
