/* Runs the kernels of another kind of machine on cases that test_neon.py has written to a file.
 *
 *   cross_driver                        prints the instruction sets that this CPU can run
 *   cross_driver ISA THREADS IN OUT     writes every case's result to OUT
 *
 * A case is a weight to pack or to convert, or a model to step, as fireside.h's structures lie in memory: the
 * machine that wrote it must have the same sizes, which is checked. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "convert.h"
#include "fireside.h"

static FILE *in, *out;

static void fail(const char *what)
{
    fprintf(stderr, "cross_driver: %s\n", what);
    exit(1);
}

static void get(void *to, size_t nbytes)
{
    if (fread(to, 1, nbytes, in) != nbytes) fail("the cases end too early");
}

static int64_t number(void)
{
    int64_t value;
    get(&value, sizeof value);
    return value;
}

static void *block(int64_t nbytes)
{
    void *memory = fs_memory_new(nbytes, 0);
    if (!memory) fail("no memory");
    get(memory, (size_t)nbytes);
    return memory;
}

static void put(const void *from, size_t nbytes)
{
    if (fwrite(from, 1, nbytes, out) != nbytes) fail("cannot write");
}

static void convert(int32_t isa)
{
    int64_t from = number(), to = number(), count = number(), size = number(), nbytes = number();
    void *source = block(size), *result = fs_memory_new(nbytes, 0);
    if (!result) fail("no memory");
    if (fs_convert(isa, (int32_t)from, (int32_t)to, count, source, -1, 0, result))
        fail("cannot convert");
    put(result, (size_t)nbytes);
    fs_memory_free(result, nbytes);
    fs_memory_free(source, size);
}

static void pack(int32_t isa, int32_t threads)
{
    int64_t kind = number(), from = number(), rows = number(), cols = number(), size = number();
    void *source = block(size), *packed;
    int64_t nbytes = fs_packed_nbytes((int32_t)kind, rows, cols);
    packed = fs_memory_new(nbytes, 1);
    if (!packed) fail("no memory");
    if (fs_pack(isa, threads, (int32_t)kind, packed, rows, cols, 0, rows, (int32_t)from, source,
                -1, 0))
        fail("cannot pack");
    put(packed, (size_t)nbytes);
    fs_memory_free(packed, nbytes);
    fs_memory_free(source, size);
}

static fs_weight *weights(int32_t count, int matrices)
{
    fs_weight *w = block((int64_t)sizeof *w * count);
    for (int32_t i = 0; i < count; i++)
        w[i].data = block(matrices ? fs_packed_nbytes(w[i].kind, w[i].rows, w[i].cols)
                                   : (int64_t)w[i].cols * 4);
    return w;
}

static void steps(int32_t isa, int32_t threads)
{
    fs_shape shape;
    if (number() != sizeof shape || number() != sizeof(fs_op)) fail("the structures differ");
    get(&shape, sizeof shape);
    shape.ops = block((int64_t)sizeof(fs_op) * shape.n_ops);
    shape.widths = block((int64_t)sizeof(int32_t) * shape.n_buffers);
    shape.matrices = weights(shape.n_matrices, 1);
    shape.vectors = weights(shape.n_vectors, 0);
    fs_turn *turns = block((int64_t)sizeof *turns * shape.n_turns);
    for (int32_t i = 0; i < shape.n_turns; i++)
        turns[i].frequency = block((int64_t)sizeof(double) * (turns[i].rotary_dim / 2));
    shape.turns = turns;
    shape.isa = isa;
    shape.threads = threads;
    int32_t n = (int32_t)number(), piece = (int32_t)number();
    const int32_t *tokens = block((int64_t)sizeof(int32_t) * n);
    fs_model *model = fs_model_new(&shape);
    fs_cache *cache = model ? fs_cache_new(model, n) : NULL;
    int32_t width = 0;
    for (int32_t i = 0; i < shape.n_ops; i++)
        if (shape.ops[i].out.buffer < 0) width = shape.ops[i].out.width;
    float *logits = calloc((size_t)piece * (size_t)width, sizeof(float));
    if (!cache || !logits) fail("no memory");
    for (int32_t i = 0; i < n; i += piece) {
        int32_t count = n - i < piece ? n - i : piece;
        fs_part part = {cache, tokens + i, count, i};
        if (fs_step(model, &part, 1, FS_ROWS_ALL, logits) != FS_DONE)
            fail("a step failed");
        put(logits, (size_t)count * (size_t)width * sizeof(float));
    }
    free(logits);
    fs_cache_free(cache);
    fs_model_free(model);
}

int main(int argc, char **argv)
{
    int32_t isa = 0;
    if (argc != 5) {
        for (; isa < fs_isa_count(); isa++)
            if (fs_isa_usable(isa)) printf("%s\n", fs_isa_name(isa));
        return 0;
    }
    while (isa < fs_isa_count() && strcmp(fs_isa_name(isa), argv[1])) isa++;
    if (isa == fs_isa_count() || !fs_isa_usable(isa)) fail("no such instruction set here");
    in = fopen(argv[3], "rb");
    out = fopen(argv[4], "wb");
    if (!in || !out) fail("cannot open the files");
    for (int64_t cases = number(); cases > 0; cases--) {
        int64_t kind = number();
        if (kind == 2) convert(isa);
        else if (kind) steps(isa, atoi(argv[2]));
        else pack(isa, atoi(argv[2]));
    }
    return fclose(out) != 0;
}
