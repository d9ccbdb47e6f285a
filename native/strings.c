/* Vocabularies have some 100,000 strings: looked through one by one in Python they would take longer
 * to read than the weights of a small model. */
#include "strings.h"

#include <string.h>

enum { LENGTH = 8 }; /* bytes of a length */

static uint64_t length_at(const uint8_t *p)
{
    uint64_t length = 0;
    for (int i = 0; i < LENGTH; i++)
        length |= (uint64_t)p[i] << 8 * i;
    return length;
}

int32_t fs_strings_ends(const uint8_t *data, int64_t size, int64_t start, int64_t count,
                        int64_t *ends)
{
    int64_t position = start;
    for (int64_t i = 0; i < count; i++) {
        if (size - position < LENGTH)
            return -1;
        uint64_t length = length_at(data + position);
        position += LENGTH;
        if (length > (uint64_t)(size - position))
            return -1;
        position += (int64_t)length;
        ends[i] = position;
    }
    return 0;
}

int32_t fs_strings_join(const uint8_t *data, int64_t start, int64_t count, const int64_t *ends,
                        uint8_t *out)
{
    for (int64_t i = 0; i < count; i++) {
        const uint8_t *text = data + (i ? ends[i - 1] : start) + LENGTH;
        size_t length = (size_t)(data + ends[i] - text);
        if (memchr(text, 0, length))
            return -1;
        memcpy(out, text, length);
        out[length] = 0;
        out += length + 1;
    }
    return 0;
}

static uint64_t hash_of(const uint8_t *text, int64_t length)
{
    uint64_t h = 0xCBF29CE484222325u; /* FNV-1a (Fowler, Noll and Vo), its upper half folded in */
    for (int64_t i = 0; i < length; i++)
        h = (h ^ text[i]) * 0x100000001B3u;
    return h ^ h >> 32;
}

/* The slot where a string is, or would be. */
static int64_t slot_of(const uint8_t *data, int64_t start, const int64_t *ends,
                       const int32_t *slots, int64_t n_slots, const uint8_t *text, int64_t length)
{
    int64_t at = (int64_t)(hash_of(text, length) & (uint64_t)(n_slots - 1));
    for (; slots[at]; at = (at + 1) & (n_slots - 1)) {
        const int64_t i = slots[at] - 1;
        const int64_t begin = (i ? ends[i - 1] : start) + LENGTH;
        if (ends[i] - begin == length && !memcmp(data + begin, text, (size_t)length)) break;
    }
    return at;
}

void fs_strings_index(const uint8_t *data, int64_t start, int64_t count, const int64_t *ends,
                      int32_t *slots, int64_t n_slots)
{
    memset(slots, 0, (size_t)n_slots * sizeof *slots);
    for (int64_t i = 0; i < count; i++) {
        const int64_t begin = (i ? ends[i - 1] : start) + LENGTH;
        int32_t *slot = slots + slot_of(data, start, ends, slots, n_slots, data + begin,
                                        ends[i] - begin);
        if (!*slot) *slot = (int32_t)(i + 1);
    }
}

int64_t fs_strings_find(const uint8_t *data, int64_t start, const int64_t *ends,
                        const int32_t *slots, int64_t n_slots, const uint8_t *text, int64_t length)
{
    return slots[slot_of(data, start, ends, slots, n_slots, text, length)] - (int64_t)1;
}
