/* The virtual vector in AVX-512: one register of 16 lanes, dots of bytes by VNNI. */
#define FS_INLINE static inline __attribute__((always_inline))

typedef __m512 v16;
typedef __m512i i16x;
typedef __m512i x4;
typedef __m512i w64;
typedef __m512i w8;
typedef __m512i q8_sum;
typedef __m512i q4_sum;

FS_INLINE __mmask16 lanes_below(int n) { return (__mmask16)((1u << n) - 1u); }

FS_INLINE v16 v_set(float a) { return _mm512_set1_ps(a); }
FS_INLINE v16 v_load(const float *p) { return _mm512_loadu_ps(p); }
FS_INLINE void v_store(float *p, v16 x) { _mm512_storeu_ps(p, x); }
FS_INLINE v16 v_load_n(const float *p, int n) { return _mm512_maskz_loadu_ps(lanes_below(n), p); }
FS_INLINE void v_store_n(float *p, v16 x, int n) { _mm512_mask_storeu_ps(p, lanes_below(n), x); }
FS_INLINE v16 v_half(const void *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p)); }
FS_INLINE void v_store_half(void *p, v16 x)
{
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
}
FS_INLINE v16 v_from_i8(const int8_t *p)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)));
}
FS_INLINE v16 v_fma(v16 x, v16 y, v16 z) { return _mm512_fmadd_ps(x, y, z); }
FS_INLINE v16 v_add(v16 x, v16 y) { return _mm512_add_ps(x, y); }
FS_INLINE v16 v_sub(v16 x, v16 y) { return _mm512_sub_ps(x, y); }
FS_INLINE v16 v_mul(v16 x, v16 y) { return _mm512_mul_ps(x, y); }
FS_INLINE v16 v_div(v16 x, v16 y) { return _mm512_div_ps(x, y); }
FS_INLINE v16 v_max(v16 x, v16 y) { return _mm512_max_ps(x, y); }
FS_INLINE v16 v_min(v16 x, v16 y) { return _mm512_min_ps(x, y); }
FS_INLINE v16 v_abs(v16 x) { return _mm512_abs_ps(x); }
FS_INLINE v16 v_swap(v16 x) { return _mm512_permute_ps(x, 0xb1); }
FS_INLINE v16 v_keep_n(v16 x, v16 y, int n) { return _mm512_mask_mov_ps(y, lanes_below(n), x); }
FS_INLINE v16 v_scale2(v16 p, v16 t)
{
    __m512i exponent = _mm512_slli_epi32(_mm512_castps_si512(t), 23);
    return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(p), exponent));
}
FS_INLINE float v_sum(v16 x)
{
    __m256 a = _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
    __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}
FS_INLINE float v_hmax(v16 x)
{
    __m256 a = _mm256_max_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
    __m128 b = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_max_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_max_ss(b, _mm_movehdup_ps(b)));
}
FS_INLINE int32_t v_store_i8(int8_t *p, v16 x)
{
    __m128i q = _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(x));
    _mm_storeu_si128((__m128i *)p, q);
    __m128i sums = _mm_sad_epu8(_mm_xor_si128(q, _mm_set1_epi8(-128)), _mm_setzero_si128());
    return _mm_cvtsi128_si32(sums) + _mm_extract_epi16(sums, 4) - 16 * 128;
}
/* the largest float below a half: with it sums round as roundf does */
FS_INLINE i16x v_round(v16 x)
{
    __m512 sign = _mm512_and_ps(x, _mm512_set1_ps(-0.0f));
    __m512 half = _mm512_or_ps(sign, _mm512_set1_ps(0.49999997f));
    return _mm512_cvttps_epi32(_mm512_add_ps(x, half));
}
typedef __m256i h16;
FS_INLINE h16 h_least(void) { return _mm256_set1_epi16(1); }
FS_INLINE h16 h_larger(const uint8_t *halfs, h16 a)
{
    const __m256i b = _mm256_loadu_si256((const __m256i *)halfs);
    return _mm256_max_epu16(a, _mm256_and_si256(b, _mm256_set1_epi16(0x7fff)));
}
FS_INLINE v16 h_floats(h16 a) { return _mm512_cvtph_ps(a); }
FS_INLINE void v_units(v16 most, const float levels, v16 *levels_in_one, v16 *unit)
{
    __m512i e = _mm512_and_si512(_mm512_castps_si512(most), _mm512_set1_epi32((int)FS_EXPONENT));
    __m512i in_one = _mm512_sub_epi32(_mm512_set1_epi32((int)FS_LEVELS_IN_ONE(levels)), e);
    *levels_in_one = _mm512_castsi512_ps(in_one);
    *unit = _mm512_castsi512_ps(_mm512_add_epi32(_mm512_set1_epi32((int)FS_UNIT(levels)), e));
}
FS_INLINE i16x v_trunc(v16 x) { return _mm512_cvttps_epi32(x); }
FS_INLINE i16x v_nearest(v16 x) { return _mm512_cvtps_epi32(x); }
FS_INLINE i16x v_nearest16(v16 x, v16 y)
{
    return _mm512_castps_si512(_mm512_fmadd_ps(x, y, _mm512_set1_ps(12582912.0f)));
}
FS_INLINE i16x i_mla(i16x sum, i16x a, i16x b)
{
    return _mm512_add_epi32(sum, _mm512_mullo_epi32(a, b));
}
/* the upper 16 bits of a and b are their signs: they must not be multiplied as well */
FS_INLINE i16x i_mla16(i16x sum, i16x a, i16x b)
{
    return _mm512_dpwssd_epi32(sum, a, _mm512_and_si512(b, _mm512_set1_epi32(0xffff)));
}
typedef __m512i pairs;
FS_INLINE pairs pairs_load(const uint8_t *p)
{
    return _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)p));
}
FS_INLINE i16x pairs_of(pairs a, const int second)
{
    return _mm512_srai_epi32(second ? a : _mm512_slli_epi32(a, 16), 16);
}
FS_INLINE i16x pairs_dot(i16x sum, pairs a, int32_t b)
{
    return _mm512_dpwssd_epi32(sum, a, _mm512_set1_epi32(b));
}
/* K types: products of 16 bits cost less, and sums of four groups fit into them: of 4 bits 30,480 */
#define FS_OWN_GROUPS
#define k_groups(KIND) (fs_has_halves(KIND) || !fs_high_bits(KIND) ? 4 : 8)
typedef i16x k_sum;
typedef i16x k_level;
#define k_start() _mm512_setzero_si512()
#define k_dot(sum, w, x) u_dot(sum, w, x)
#define k_narrow(KIND) (fs_low_bits(KIND) + fs_high_bits(KIND) <= 4)
FS_INLINE k_level k_level_of(const int KIND, pairs a, const int second)
{
    if (!k_narrow(KIND)) return pairs_of(a, second);
    return second ? _mm512_srli_epi32(a, 16) : _mm512_and_si512(a, _mm512_set1_epi32(0xffff));
}
#define k_low16(KIND) k_narrow(KIND)
#define k_begin(shift) int_set(shift)
#define k_less(total, level, shift) (total)
#define k_level_one(KIND, level) (k_narrow(KIND) ? _mm512_and_si512(level, _mm512_set1_epi32(0xffff)) : (level))
#define k_end(KIND, total, sum, level) \
    (k_narrow(KIND) ? _mm512_dpwssd_epi32(total, sum, level) : i_mla(total, sum, level))
FS_INLINE i16x i_low(i16x x) { return _mm512_and_si512(x, _mm512_set1_epi32(255)); }
FS_INLINE i16x i_join(i16x x, i16x y, int shift)
{
    return _mm512_or_si512(x, _mm512_slli_epi32(i_low(y), (unsigned)shift));
}
FS_INLINE void i_store(void *p, i16x x) { _mm512_storeu_si512(p, x); }
FS_INLINE v16 v_from_int(i16x x) { return _mm512_cvtepi32_ps(x); }
FS_INLINE x4 x4_load(const int8_t *p)
{
    int32_t four;
    memcpy(&four, p, 4);
    return _mm512_set1_epi32(four);
}
FS_INLINE w64 w_load(const uint8_t *p) { return _mm512_loadu_si512(p); }
FS_INLINE w64 w_low(w64 w) { return _mm512_and_si512(w, _mm512_set1_epi8(15)); }
FS_INLINE w64 w_high(w64 w) { return w_low(_mm512_srli_epi16(w, 4)); }
FS_INLINE w64 w_bits(w64 w, int left, int mask)
{
    w = left >= 0 ? _mm512_slli_epi16(w, (unsigned)left) : _mm512_srli_epi16(w, (unsigned)-left);
    return _mm512_and_si512(w, _mm512_set1_epi8((char)mask));
}
FS_INLINE w64 w_or(w64 a, w64 b) { return _mm512_or_si512(a, b); }
FS_INLINE w8 q8_table(const uint8_t *table, w64 w)
{
    const __m128i t = _mm_loadu_si128((const __m128i *)table);
    return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(t), w);
}
FS_INLINE v16 v_brain(const void *p)
{
    __m512i halfs = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(halfs, 16));
}
#define int_set(a) _mm512_set1_epi32(a)
#define u_dot(sum, w, x) _mm512_dpbusd_epi32(sum, w, x)
#define q8_load(p) w_load(p)
#define q8_start(shift) _mm512_set1_epi32(shift)
#define q8_dot(sum, w, x) _mm512_dpbusd_epi32(sum, w, x)
#define q8_finish(sum, shift) (sum)
#define q4_start(shift) _mm512_set1_epi32(shift)
#define q4_dot(sum, w, x) _mm512_dpbusd_epi32(sum, w, x)
#define q4_finish(sum, shift) (sum)
#define v_prefetch(p) _mm_prefetch((const char *)(p), _MM_HINT_T0)
#define v_prefetch_second(p) _mm_prefetch((const char *)(p), _MM_HINT_T1)
