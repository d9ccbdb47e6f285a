/* Arrays of strings as a GGUF file has them: each is its length (u64, little-endian) and its bytes. */
#ifndef FS_STRINGS_H
#define FS_STRINGS_H

#include <stdint.h>

/* cffi begins */

/* Where `count` such strings end that begin at `start` of data [size]: ends [count]. -1 where the last
 * of them lies beyond `size`; nothing beyond is read. */
int32_t fs_strings_ends(const uint8_t *data, int64_t size, int64_t start, int64_t count,
                        int64_t *ends);
/* Their bytes without the lengths, a zero byte behind each: out [ends[count - 1] - start - 7 * count].
 * -1 where one holds a zero byte itself. */
int32_t fs_strings_join(const uint8_t *data, int64_t start, int64_t count, const int64_t *ends,
                        uint8_t *out);

/* cffi ends */

#endif
