/* The extension's interface: what Python sees (build_native.py gives cffi everything between the
 * two marks) and what the files here share. All arrays are row-major; strides count elements. */
#ifndef FS_FIRESIDE_H
#define FS_FIRESIDE_H

#include <stdint.h>

/* cffi begins */

/* ---- instruction sets ---- */
int32_t fs_isa_count(void);
const char *fs_isa_name(int32_t isa);  /* slowest first; 0 is "reference" */
int32_t fs_isa_usable(int32_t isa);    /* whether this CPU and its operating system have it */
int32_t fs_has_openmp(void);

/* ---- memory: zeroed, 64-byte aligned, touched only when used ---- */
void *fs_memory_new(int64_t nbytes, int32_t huge_pages); /* NULL where there is not enough */
void fs_memory_free(void *memory, int64_t nbytes);

/* ---- packed weights ---- */
enum { FS_PACK_F32, FS_PACK_F16, FS_PACK_BF16, FS_PACK_Q8, FS_PACK_Q4, FS_PACK_Q4_1, FS_PACK_Q5_0,
       FS_PACK_Q5_1, FS_PACK_IQ4_NL, FS_PACK_MXFP4, FS_PACK_Q4_K, FS_PACK_Q5_K, FS_PACK_Q6_K,
       FS_PACK_Q2_K, FS_PACK_Q3_K, FS_PACK_IQ4_XS }; /* packed kinds */
enum { FS_FROM_F32, FS_FROM_F16, FS_FROM_BF16, FS_FROM_Q8_0, FS_FROM_Q4_0, FS_FROM_Q4_1, FS_FROM_Q5_0,
       FS_FROM_Q5_1, FS_FROM_IQ4_NL, FS_FROM_MXFP4, FS_FROM_Q4_K, FS_FROM_Q5_K, FS_FROM_Q6_K,
       FS_FROM_Q2_K, FS_FROM_Q3_K, FS_FROM_IQ4_XS }; /* kinds in a file, the same order */
int64_t fs_packed_nbytes(int32_t kind, int64_t rows, int64_t cols);
enum { FS_PACK_BAD = -1, FS_PACK_SHORT = -2 };
/* Rows [first, first + count) of a packed matrix of `rows` x `cols` from `source`, count whole rows
 * of a file; where that is NULL they are read from the open `file` at `offset`. A kind of a file is
 * copied without loss into the packed one of its name; F32, F16, Q8 and Q4 are made of everything,
 * through float (halfs: at most 65504 in size). 0; FS_PACK_BAD where the
 * kinds or sizes do not go together; FS_PACK_SHORT where the file ends before; else an errno. */
int32_t fs_pack(int32_t isa, int32_t threads, int32_t kind, void *packed, int64_t rows,
                int64_t cols, int64_t first, int64_t count, int32_t from, const void *source,
                int32_t file, int64_t offset);
typedef struct fs_pack_job { /* the same, as above */
    int32_t kind, from, file;
    void *packed;
    int64_t rows, cols, first, count;
    const void *source;
    int64_t offset;
} fs_pack_job;
/* Many at once, for a model has many that are small: no two may have rows of one panel (of 16). What
 * fs_pack gives of one that failed, and which that was, or 0. */
int32_t fs_pack_all(int32_t isa, int32_t threads, const fs_pack_job *jobs, int32_t count,
                    int32_t *failed);
/* Rows [first, first + count) back as floats: out [count, cols]. */
void fs_unpack(int32_t kind, const void *packed, int64_t rows, int64_t cols,
               int64_t first, int64_t count, float *out);

/* ---- a model: the operations of a plan, lowered ---- */
enum { FS_EMBED, FS_NORM, FS_MATMUL, FS_ROPE, FS_ATTENTION, FS_ACTIVATE, FS_ADD, FS_BIAS, FS_SCALE,
       FS_EXPERTS, FS_SELECT };
enum { FS_PLAIN, FS_AFTER_NORM, FS_AFTER_ACTIVATION }; /* what a matmul does to its input first */
enum { FS_RMS, FS_LAYER };                 /* norms */
enum { FS_SILU, FS_GELU, FS_GELU_TANH };   /* activations */

typedef struct fs_slice {
    int32_t buffer, start, width; /* columns of a buffer; buffer -1: the caller's logits */
} fs_slice;

typedef struct fs_op {
    int32_t kind;
    int32_t before;     /* MATMUL: FS_PLAIN, FS_AFTER_NORM or FS_AFTER_ACTIVATION */
    int32_t add;        /* MATMUL, NORM: out += */
    fs_slice x, y, z;   /* inputs: x; gate, up (width 0: none); q, k, v; EXPERTS: x, router */
    fs_slice out;
    int32_t matrix;     /* EMBED, MATMUL; EXPERTS: gate */
    int32_t up, down;   /* EXPERTS: matrices of all experts, one behind the other */
    int32_t positions;  /* EMBED: matrix (-1: none) */
    int32_t vector;     /* BIAS; NORM, MATMUL after a norm: its weight */
    int32_t vector_bias;/* of a layer norm (-1: none) */
    int32_t bias;       /* MATMUL: added to its result (-1: none) */
    int32_t norm;       /* NORM, MATMUL after a norm: FS_RMS or FS_LAYER */
    float eps;          /* of that norm, of norm_q and norm_k */
    int32_t activation; /* ACTIVATE, MATMUL after one, EXPERTS: FS_SILU... */
    float scale;        /* ATTENTION: of the scores; EMBED, SCALE: factor */
    float softcap;      /* ATTENTION, SCALE (0: none) */
    int32_t window;     /* ATTENTION: positions that a token sees (0: all) */
    int32_t layer;
    int32_t head_dim;   /* ATTENTION, ROPE; NORM: of each head (0: of the whole row) */
    int32_t rope_q, rope_k; /* ATTENTION (-1: none); ROPE: rope_q */
    int32_t norm_q, norm_k; /* ATTENTION: vectors of norms of the heads (-1: none) */
    int32_t hidden, used, normalise; /* EXPERTS: rows of an expert's gate, how many count */
} fs_op;

typedef struct fs_weight {
    int32_t kind, rows, cols; /* FS_PACK_...; a vector is F32 with rows 1 and plain floats */
    void *data;
} fs_weight;

typedef struct fs_turn {
    int32_t rotary_dim, half; /* half: elements (i, i + rotary_dim/2) turn, else (2i, 2i + 1) */
    float magnitude;          /* of cos and sin */
    const double *frequency;  /* [rotary_dim / 2] radians per position; copied */
} fs_turn;

enum { FS_CACHE_F32, FS_CACHE_F16, FS_CACHE_Q8 }; /* how keys and values are kept */

typedef struct fs_shape {
    int32_t n_ops, n_buffers, n_matrices, n_vectors, n_turns;
    const fs_op *ops;
    const int32_t *widths; /* [n_buffers] */
    const fs_weight *matrices;
    const fs_weight *vectors;
    const fs_turn *turns;
    int32_t n_layers, n_kv_heads, head_dim;
    int32_t cache;  /* FS_CACHE_... */
    int32_t vocab;  /* rows of the embedding */
    int32_t chunk;  /* rows that go through the operations at once */
    int32_t isa, threads;
} fs_shape;

typedef struct fs_model fs_model;
typedef struct fs_cache fs_cache;

fs_model *fs_model_new(const fs_shape *shape); /* NULL where memory is short */
void fs_model_free(fs_model *model);
int64_t fs_model_scratch(const fs_model *model); /* bytes beside the weights */

/* A cache takes memory in pages as the text grows, up to `capacity` positions. A fork shares what
 * its origin holds until one of the two writes there. Both are free to go first. */
fs_cache *fs_cache_new(const fs_model *model, int64_t capacity); /* NULL where memory is short */
fs_cache *fs_cache_fork(const fs_model *model, const fs_cache *origin);
void fs_cache_free(fs_cache *cache);
int64_t fs_cache_nbytes(const fs_cache *cache); /* held now; what is shared counts for each */
int64_t fs_cache_page_nbytes(const fs_model *model); /* of 64 positions */

typedef struct fs_part {
    fs_cache *cache;
    const int32_t *tokens; /* [n] */
    int32_t n, position;   /* position of the first */
} fs_part;

enum { FS_DONE, FS_ABORTED, FS_BAD_TOKEN, FS_BAD_POSITION, FS_NO_MEMORY };
enum { FS_ROWS_NONE, FS_ROWS_LAST, FS_ROWS_ALL };
/* Parts of different caches in one step; logits: [0, n_parts (the last row of each) or all rows, part
 * by part][vocab]. One call of one thread at a time. */
int32_t fs_step(fs_model *model, const fs_part *parts, int32_t n_parts, int32_t rows,
                float *logits);
void fs_abort(fs_model *model); /* the running step, or the next one, returns FS_ABORTED */

/* Time that the first thread spent in each kind of operation (FS_EMBED ... FS_SELECT), and, in none of
 * those: FS_WAITING at barriers, from arriving to leaving; FS_PREPARING inputs of matmuls, which are normed
 * or activated, and rounded. */
enum { FS_WAITING = FS_SELECT + 1, FS_PREPARING, FS_PROFILED };
void fs_profile(fs_model *model, int32_t on);              /* on or off, from zero */
void fs_profile_read(const fs_model *model, double *seconds); /* [FS_PROFILED] */

/* cffi ends */

#include "kernels.h"

fs_kernels fs_isa_kernels(int32_t isa);
/* `size` bytes of a file at `offset`: 0, FS_PACK_SHORT where it ends before, else errno */
int32_t fs_read_file(int32_t file, int64_t offset, int64_t size, uint8_t *out);
void fs_matrix_init(fs_matrix *matrix, int32_t kind, int64_t rows, int64_t cols, void *data);
void fs_unpack_row(const fs_matrix *matrix, int64_t row, float *out);

#endif
