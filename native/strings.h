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
/* An index of them by their bytes: slots [n_slots], a power of 2 above `count`, get the number of a
 * string and 1, or 0; of equal strings only the first is there. */
void fs_strings_index(const uint8_t *data, int64_t start, int64_t count, const int64_t *ends,
                      int32_t *slots, int64_t n_slots);
/* The number of the string that is text [length]; -1: there is none. */
int64_t fs_strings_find(const uint8_t *data, int64_t start, const int64_t *ends,
                        const int32_t *slots, int64_t n_slots, const uint8_t *text, int64_t length);

/* cffi ends */

#endif
