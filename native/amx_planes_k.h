/* Types other than Q8 and Q4 for AMX, part of kernels_amx.c: a weight's number times its block's scale, the
 * file's or a level, as planes of bytes, of FS_SUPER blocks of a panel; see kernels.h for how they lie.
 *
 * Q4_K, Q5_K: a scale is 16 (8) * up + down, so that a number times each fits into an unsigned byte, and
 * two bytes are multiplied at once as one number of 16 bits. Q6_K, IQ4_XS: products of 14 bits, the bytes
 * of even and of odd columns apart. Q2_K, Q3_K: one plane; a number times its scale fits into a byte,
 * of Q3_K's the negative one (32 * 4 would not). Those with levels: products of 16 bits. */

/* bits by which the high plane counts more; 0: there is none */
FS_ALWAYS int plane_bits(const int KIND)
{
    switch (KIND) {
    case FS_Q4:
    case FS_Q4_K: return 4;
    case FS_Q5_K: return 3;
    case FS_Q2_K:
    case FS_Q3_K: return 0;
    default: return 8;
    }
}

/* whether the bytes of a plane are unsigned */
FS_ALWAYS int plane_unsigned(const int KIND, const int LOW)
{
    if (KIND == FS_Q4_K || KIND == FS_Q5_K || KIND == FS_Q2_K) return 1;
    return LOW && KIND != FS_Q4;
}

/* bytes (0, 1, 2 or 3; 128: zero) of each row's four */
FS_ALWAYS __m512i of_each_row(__m512i x, int a, int b, int c, int d)
{
    const __m128i rows = _mm_setr_epi8(0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12);
    const int four = (int)((unsigned)d << 24 | (unsigned)c << 16 | (unsigned)b << 8 | (unsigned)a);
    return _mm512_shuffle_epi8(
        x, _mm512_broadcast_i32x4(_mm_or_si128(rows, _mm_set1_epi32(four))));
}

/* the numbers of group g of a block, four columns of each row */
FS_ALWAYS __m512i numbers_of(const int KIND, const uint8_t *block, const int g)
{
#define FS_BITS(from, left, mask)                                                       \
    _mm512_and_si512((left) >= 0 ? _mm512_slli_epi16(from, (unsigned)((left) & 15))     \
                                 : _mm512_srli_epi16(from, (unsigned)(-(left) & 15)),   \
                     _mm512_set1_epi8(mask))
    if (fs_low_bits(KIND) == 2) {
        const __m512i two = FS_BITS(_mm512_loadu_si512(block + g / 4 * 64), -(g % 4 * 2), 3);
        if (!fs_high_bits(KIND)) return two;
        return _mm512_or_si512(two, FS_BITS(_mm512_loadu_si512(block + 128), 2 - g, 4));
    }
    const __m512i low = FS_BITS(_mm512_loadu_si512(block + g % 4 * 64), g < 4 ? 0 : -4, 15);
    if (fs_high_bits(KIND) == 1)
        return _mm512_or_si512(low, FS_BITS(_mm512_loadu_si512(block + 256), 4 - g, 0x10));
    if (fs_high_bits(KIND) == 2)
        return _mm512_or_si512(
            low, FS_BITS(_mm512_loadu_si512(block + 256 + g / 4 * 64), 4 - g % 4 * 2, 0x30));
    if (fs_table(KIND)) {
        const __m128i table = _mm_loadu_si128((const __m128i *)fs_table(KIND));
        return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(table), low);
    }
    return low;
#undef FS_BITS
}

/* Levels of n blocks, twice 16 bits a row, and what one of them is worth; see fs_levels_of(). */
FS_ALWAYS void find_levels(const uint8_t *halfs, const int64_t apart, const float power, const int64_t n,
                           __m512i *levels, float *unit)
{
    const __m256i size = _mm256_set1_epi16(0x7fff);
    __m256i d[FS_SUPER], most = _mm256_set1_epi16(1);
    for (int64_t i = 0; i < n; i++) {
        d[i] = _mm256_loadu_si256((const __m256i *)(halfs + i * apart));
        most = _mm256_max_epu16(_mm256_and_si256(d[i], size), most);
    }
    const __m512i exponent = _mm512_set1_epi32((int)FS_EXPONENT);
    const __m512i e = _mm512_and_si512(_mm512_castps_si512(_mm512_cvtph_ps(most)), exponent);
    const __m512 levels_in_one =
        _mm512_castsi512_ps(_mm512_sub_epi32(_mm512_set1_epi32((int)FS_LEVELS_IN_ONE(power)), e));
    for (int64_t i = 0; i < n; i++) {
        __m512i level = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_cvtph_ps(d[i]), levels_in_one));
        levels[i] = _mm512_mask_mov_epi16(_mm512_slli_epi32(level, 16), 0x55555555, level);
    }
    _mm512_store_si512((__m512i *)unit, _mm512_add_epi32(_mm512_set1_epi32((int)FS_UNIT(power)), e));
}

/* Minima of n blocks; of blocks that are not there zero. */
FS_ALWAYS void find_minima(const uint8_t *halfs, const int64_t apart, const int64_t n, __m512i *minima)
{
    for (int64_t i = 0; i < FS_SUPER; i++)
        minima[i] = i >= n ? _mm512_setzero_si512()
                           : _mm512_castps_si512(_mm512_cvtph_ps(
                                 _mm256_loadu_si256((const __m256i *)(halfs + i * apart))));
}

/* Of n blocks the products of numbers and levels, those of even and of odd columns. */
FS_ALWAYS void unpack_levels(const int KIND, const uint8_t *w, const __m512i *levels, const int64_t n,
                             uint8_t planes[][2][1024])
{
    const __m512i swapped = _mm512_set4_epi32(0x0e0f0c0d, 0x0a0b0809, 0x06070405, 0x02030001);
    const __m512i even = _mm512_set1_epi16(255), middle = _mm512_set1_epi16((short)fs_middle(KIND));
    const __mmask64 odd = 0xaaaaaaaaaaaaaaaau;
    for (int64_t b = 0; b < n; b++, w += fs_block_bytes(KIND)) {
        uint8_t *high = planes[b / 2][0] + b % 2 * 512, *low = planes[b / 2][1] + b % 2 * 512;
        const __m512i less = _mm512_mullo_epi16(levels[b], middle);
        _Pragma("GCC unroll 8") for (int g = 0; g < 8; g++) {
            const __m512i u = numbers_of(KIND, w, g);
            __m512i x = _mm512_mullo_epi16(_mm512_and_si512(u, even), levels[b]);
            __m512i y = _mm512_mullo_epi16(_mm512_srli_epi16(u, 8), levels[b]);
            if (fs_middle(KIND)) x = _mm512_sub_epi16(x, less), y = _mm512_sub_epi16(y, less);
            _mm512_store_si512(high + g * 64, _mm512_mask_shuffle_epi8(y, ~odd, x, swapped));
            _mm512_store_si512(low + g * 64, _mm512_mask_shuffle_epi8(x, odd, y, swapped));
        }
    }
}

/* One block; pair: two scales of each row, those of its halves or of two blocks, of which it is the
 * second or not. */
FS_ALWAYS void unpack_k_block(const int KIND, const uint8_t *block, const __m512i pair, const int second,
                              uint8_t *high, uint8_t *low)
{
    const __m512i swapped = _mm512_set4_epi32(0x0e0f0c0d, 0x0a0b0809, 0x06070405, 0x02030001);
    const __mmask64 odd = 0xaaaaaaaaaaaaaaaau;
    _Pragma("GCC unroll 2") for (int half = 0; half < 2; half++) {
        /* which of the pair: of this half of the block, or of the whole block */
        const int i = 2 * (fs_has_halves(KIND) ? half : second);
        const __m512i s = of_each_row(pair, i, i + 1, i, i + 1);
        const __m512i even_s = of_each_row(pair, i, 128, i, 128), odd_s = of_each_row(pair, 128, i, 128, i);
        const __m512i mask = _mm512_set1_epi16(KIND == FS_Q4_K ? 15 : 7);
        const __m512i up = _mm512_srli_epi16(s, plane_bits(KIND) & 7), down = _mm512_and_si512(s, mask);
        const __m512i offset = _mm512_slli_epi16(s, KIND == FS_Q6_K ? 5 : 7);
        const __mmask64 positive = ~_mm512_movepi8_mask(_mm512_srai_epi16(s, 15));
        const __m512i size = _mm512_abs_epi16(s);
        const __m512i four = _mm512_mullo_epi16(size, _mm512_set1_epi16(0x0404));
        _Pragma("GCC unroll 4") for (int g = 4 * half; g < 4 * half + 4; g++) {
            __m512i u = numbers_of(KIND, block, g);
            if (KIND == FS_Q2_K) {
                _mm512_store_si512(high + g * 64, _mm512_mullo_epi16(u, s));
            } else if (KIND == FS_Q3_K) {
                u = _mm512_mask_sub_epi8(u, positive, _mm512_set1_epi8(8), u);
                u = _mm512_sub_epi8(_mm512_mullo_epi16(u, size), four);
                _mm512_store_si512(high + g * 64, u);
            } else if (KIND == FS_Q6_K || KIND == FS_IQ4_XS) {
                const __m512i x = _mm512_sub_epi16(_mm512_maddubs_epi16(u, even_s), offset);
                const __m512i y = _mm512_sub_epi16(_mm512_maddubs_epi16(u, odd_s), offset);
                _mm512_store_si512(high + g * 64, _mm512_mask_shuffle_epi8(y, ~odd, x, swapped));
                _mm512_store_si512(low + g * 64, _mm512_mask_shuffle_epi8(x, odd, y, swapped));
            } else {
                _mm512_store_si512(high + g * 64, _mm512_mullo_epi16(u, up));
                _mm512_store_si512(low + g * 64, _mm512_mullo_epi16(u, down));
            }
        }
    }
}

/* FS_SUPER blocks of a panel: their planes, what a whole number of theirs is worth, and minima as pairs
 * of 16 bits. */
FS_ALWAYS void unpack_k(const int KIND, const uint8_t *w, const uint8_t *scales,
                        uint8_t planes[][2][1024], float *unit, float *low_unit, __m512i *minima)
{
    const uint8_t *pairs = scales + (fs_has_minima(KIND) ? 64 : 32);
    const int halves = fs_has_halves(KIND), n = FS_SUPER / (2 - halves);
    const __m512 d = _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)scales));
    _mm512_store_ps(unit, KIND == FS_Q3_K ? _mm512_sub_ps(_mm512_setzero_ps(), d) : d);
    for (int b = 0; b < FS_SUPER; b++, w += fs_block_bytes(KIND)) {
        const uint8_t *at = pairs + (halves ? b : b / 2) * 2 * FS_LANES;
        const __m512i pair = _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)at));
        unpack_k_block(KIND, w, pair, b % 2, planes[b / 2][0] + b % 2 * 512, planes[b / 2][1] + b % 2 * 512);
    }
    if (!fs_has_minima(KIND)) return;
    const __m512 m = _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(scales + 32)));
    _mm512_store_ps(low_unit, _mm512_sub_ps(_mm512_setzero_ps(), m));
    for (int i = 0; i < n; i++)
        minima[i] = _mm512_cvtepi8_epi16(
            _mm256_loadu_si256((const __m256i *)(pairs + (n + i) * 2 * FS_LANES)));
}
