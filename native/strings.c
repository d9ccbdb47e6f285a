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
