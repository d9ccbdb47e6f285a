/* The cache: a table of pages of FS_PAGE positions, all layers of a position in one page.
 *
 * Pages are taken as the text grows. A fork shares all pages of its origin; whoever writes to a
 * page that others hold as well writes to a copy of it. */
#include <stdlib.h>
#include <string.h>

#include "model.h"

enum { HEADER = 64 }; /* before a page's data, which stays aligned */

typedef struct {
    _Atomic int32_t holders;
} fs_page_header;

static fs_page_header *header_of(char *page) { return (fs_page_header *)(page - HEADER); }

static char *new_page(int64_t nbytes)
{
    /* where a page takes megabytes all of it fills in 64 positions anyway */
    char *memory = fs_memory_new(nbytes + HEADER, 1);
    if (!memory) return NULL;
    atomic_init(&((fs_page_header *)memory)->holders, 1);
    return memory + HEADER;
}

static void drop_page(char *page, int64_t nbytes)
{
    if (atomic_fetch_sub_explicit(&header_of(page)->holders, 1, memory_order_acq_rel) == 1)
        fs_memory_free(page - HEADER, nbytes + HEADER);
}

void fs_layout_init(fs_layout *l, int32_t kind, int32_t n_layers, int32_t n_kv_heads,
                    int32_t head_dim)
{
    static const int64_t SIZES[FS_KV_KINDS] = {4, 2, 1};
    const int64_t scales = kind == FS_KV_Q8 ? FS_PAGE * ((head_dim + FS_BLOCK - 1) / FS_BLOCK) * 4 : 0;
    l->kind = kind;
    l->head_dim = head_dim;
    l->n_kv_heads = n_kv_heads;
    l->value_width = (int32_t)fs_round_up(head_dim, FS_LANES);
    l->groups = (head_dim + FS_BLOCK - 1) / FS_BLOCK;
    l->values = FS_PAGE * head_dim * SIZES[kind] + scales;
    l->head_nbytes = l->values + FS_PAGE * l->value_width * SIZES[kind] + scales;
    l->page_nbytes = l->head_nbytes * n_layers * n_kv_heads;
}

fs_cache *fs_cache_new(const fs_model *m, int64_t capacity)
{
    fs_cache *c = calloc(1, sizeof *c);
    if (!c) return NULL;
    c->capacity = capacity;
    c->page_nbytes = m->layout.page_nbytes;
    c->pages = calloc((size_t)(capacity / FS_PAGE + 1), sizeof *c->pages);
    if (c->pages) return c;
    free(c);
    return NULL;
}

fs_cache *fs_cache_fork(const fs_model *m, const fs_cache *origin)
{
    fs_cache *c = fs_cache_new(m, origin->capacity);
    if (!c) return NULL;
    for (; c->held < origin->held; c->held++) {
        char *page = c->pages[c->held] = origin->pages[c->held];
        atomic_fetch_add_explicit(&header_of(page)->holders, 1, memory_order_relaxed);
    }
    return c;
}

void fs_cache_free(fs_cache *c)
{
    if (!c) return;
    for (int64_t i = 0; i < c->held; i++) drop_page(c->pages[i], c->page_nbytes);
    free(c->pages);
    free(c);
}

int64_t fs_cache_nbytes(const fs_cache *c)
{
    return c->held * c->page_nbytes + (c->capacity / FS_PAGE + 1) * (int64_t)sizeof *c->pages;
}

int64_t fs_cache_page_nbytes(const fs_model *m) { return m->layout.page_nbytes; }

int fs_cache_reserve(fs_cache *c, int64_t position, int64_t n)
{
    for (int64_t i = position / FS_PAGE; i <= (position + n - 1) / FS_PAGE; i++) {
        if (i < c->held && atomic_load(&header_of(c->pages[i])->holders) == 1) continue;
        char *page = new_page(c->page_nbytes);
        if (!page) return 0;
        if (i < c->held) {
            memcpy(page, c->pages[i], (size_t)c->page_nbytes);
            drop_page(c->pages[i], c->page_nbytes);
        } else {
            c->held = i + 1;
        }
        c->pages[i] = page;
    }
    return 1;
}
