/* SCULPT_TITLE
 *
 * Written by `sculpt export --format c`: the network, its weights that are not zero, and what
 * runs it. C11; where the compiler is GCC or Clang, by their vector extensions. Compile with
 *
 *     cc -O3 -march=native -ffp-contract=fast -fopenmp -fPIC -shared FILE.c -o FILE.so -lm
 *
 * (-fopenmp may be left out: then there is one thread). The whole interface:
 *
 *     size_t sculpt_workspace_bytes(int batch, int threads);
 *     int sculpt_run(const float *images, int batch, float *logits, void *workspace,
 *                    size_t workspace_bytes, int threads);
 *     const char *sculpt_info(void);
 *
 * Images are (batch, channels, height, width), logits (batch, classes). `sculpt_run` allocates
 * nothing and keeps nothing between calls, so that several threads may call it, each with a
 * workspace of its own, which begins at a multiple of 64 bytes. It returns 0 or a code below.
 * Logits do not depend on `threads`.
 */

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef _OPENMP
#include <omp.h>
#endif

#define SCULPT_NULL_POINTER (-1)
#define SCULPT_NO_BATCH (-2)      /* batch < 1 */
#define SCULPT_NO_THREADS (-3)    /* threads < 1 */
#define SCULPT_MISALIGNED (-4)    /* the workspace does not begin at a multiple of 64 bytes */
#define SCULPT_SMALL_WORKSPACE (-5)

#if defined(_WIN32)
#define SCULPT_PUBLIC __declspec(dllexport)
#elif defined(__GNUC__)
#define SCULPT_PUBLIC __attribute__((visibility("default")))
#else
#define SCULPT_PUBLIC
#endif

SCULPT_PUBLIC size_t sculpt_workspace_bytes(int batch, int threads);
SCULPT_PUBLIC int sculpt_run(const float *images, int batch, float *logits, void *workspace,
                             size_t workspace_bytes, int threads);
SCULPT_PUBLIC const char *sculpt_info(void);

/* ---- Lanes ------------------------------------------------------------------------------------
 * One number of every lane makes a `vec`. A lane holds an image, or a tile of one: a batch fills
 * the lanes with images, and a single image with its tiles (a grid of, say, 4x4 of them). Either
 * way the neighbour of a pixel is at one and the same distance in all lanes, for every layer and
 * stride; only the rim ("halo") of a tile has to be copied from the tiles around it.
 */

#if defined(SCULPT_PLAIN) || !defined(__GNUC__) /* any compiler: one lane */
#define LANES 1
#define INLINE static inline
#define UNROLL
typedef float vec;
typedef int32_t ivec;
#else
#if defined(SCULPT_LANES) /* 4, 8 or 16 */
#define LANES SCULPT_LANES
#elif defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4
#endif
#define INLINE static inline __attribute__((always_inline))
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif
typedef float vec __attribute__((vector_size(4 * LANES), may_alias));
typedef int32_t ivec __attribute__((vector_size(4 * LANES), may_alias));
#endif

/* Where a result lies: [channels][top + height + bottom][left + width + right] of `vec`. Height
 * and width are those of a tile; `start` counts from the beginning of the arena. */
struct value {
    int32_t channels, height, width, grid_y, grid_x, top, left, bottom, right, start;
};

enum activation { NOTHING, RELU, RELU6, LEAKY_RELU, TANH, SELU };

enum kind {
    INPUT, /* images into lanes */
    CONV,  /* sparse layer `item` of `layers`, plus `other` if it is not -1 */
    MAP,   /* channel by channel, by item `item` of `maps`, plus `other` if it is not -1 */
    POOL,  /* windows, by item `item` of `pools` */
    MOVE   /* the same numbers in the same order, in another shape or grid */
};

struct step {
    int32_t kind, item, source, other, out, activation;
    float slope;
};

/* A convolution (a linear layer is one of 1x1 on one pixel). Inputs come in blocks, whose pixels
 * around a tile fit into the fastest cache; weights are in the order: block, output. */
struct layer {
    int32_t outputs, kernel_y, kernel_x, stride_y, stride_x, pad_y, pad_x;
    int32_t blocks, block; /* how many, and input channels of one */
    int32_t weights; /* the first of `weights` and `codes` */
    int32_t counts;  /* the first of `counts`: how many weights, by block and output */
    int32_t bias;    /* the first of `constants` */
};

struct map {
    int32_t taken; /* the first of `channels_taken`, or -1: channels as they are */
    int32_t scale; /* the first of `constants`: scales, then shifts; or -1 */
};

struct pool {
    int32_t largest, window_y, window_x, stride_y, stride_x, pad_y, pad_x;
};

struct plan {
    int32_t grid_y, grid_x;
    int32_t vectors; /* size of the arena */
    int32_t steps, result;
    double cost;     /* of a group of images, about: multiplications of a `vec` */
    const struct value *values;
    const struct step *step;
};

/*SCULPT_TABLES*/

/* ---- Arithmetic ----------------------------------------------------------------------------- */

#define ZERO ((vec){0})

#if LANES == 1
INLINE vec choose(int condition, vec yes, vec no) { return condition ? yes : no; }
#else
INLINE vec choose(ivec condition, vec yes, vec no) {
    return (vec)(((ivec)yes & condition) | ((ivec)no & ~condition));
}
#endif

static void curve(int activation, vec *value) {
    float lanes[LANES];
    memcpy(lanes, value, sizeof lanes);
    for (int lane = 0; lane < LANES; lane++) {
        const float x = lanes[lane];
        if (activation == TANH)
            lanes[lane] = tanhf(x);
        else
            lanes[lane] = 1.0507009873554805f * (x > 0.0f ? x : 1.6732632423543773f * expm1f(x));
    }
    memcpy(value, lanes, sizeof lanes);
}

/* What is not a number stays so: comparisons are such that they are false for it. */
INLINE vec rectified(vec value) { return choose(value <= ZERO, ZERO, value); }

INLINE void activate(int activation, float slope, vec *value) {
    switch (activation) {
    case NOTHING:
        break;
    case RELU:
        *value = rectified(*value);
        break;
    case RELU6:
        *value = rectified(*value);
        *value = choose(*value >= ZERO + 6.0f, ZERO + 6.0f, *value);
        break;
    case LEAKY_RELU:
        *value = choose(*value < ZERO, *value * slope, *value);
        break;
    default:
        curve(activation, value);
    }
}

/* ---- Places ---------------------------------------------------------------------------------- */

/* What a thread works in, all of it in the caller's workspace. */
struct frame {
    vec *arena;
    vec *scratch;     /* sums of a tile that wait for the next block of inputs */
    int32_t *offsets; /* of the taps of a layer: from a tile's corner to the pixel, in `vec`s */
    int32_t images;   /* that stand in the lanes: places for them, not those there are */
};

INLINE ptrdiff_t row_of(const struct value *v) { return v->left + v->width + v->right; }

INLINE ptrdiff_t plane_of(const struct value *v) {
    return (v->top + v->height + v->bottom) * row_of(v);
}

INLINE vec *pixels_of(const struct frame *frame, const struct value *v) {
    return frame->arena + v->start + v->top * row_of(v) + v->left;
}

INLINE int32_t tiles_of(const struct value *v) { return v->grid_y * v->grid_x; }

static void clear(vec *from, ptrdiff_t count) {
    for (ptrdiff_t i = 0; i < count; i++)
        from[i] = ZERO;
}

#if LANES > 1
/* The rim towards the tiles at (down, right): their pixels, moved to the lanes of this one. */
INLINE void copy_rim(const struct value *v, vec *pixels, int images, int down, int right) {
    const ptrdiff_t row = row_of(v), shift = (ptrdiff_t)down * v->grid_x + right;
    const ptrdiff_t back = (down * (ptrdiff_t)v->height) * row + right * (ptrdiff_t)v->width;
    const int y0 = down < 0 ? -v->top : down > 0 ? v->height : 0;
    const int y1 = down < 0 ? 0 : down > 0 ? v->height + v->bottom : v->height;
    const int x0 = right < 0 ? -v->left : right > 0 ? v->width : 0;
    const int x1 = right < 0 ? 0 : right > 0 ? v->width + v->right : v->width;
    int32_t inside[LANES];
    ivec mask;
    if (y0 == y1 || x0 == x1)
        return;
    for (int lane = 0; lane < LANES; lane++) {
        const int tile = lane % tiles_of(v);
        const int y = tile / v->grid_x + down, x = tile % v->grid_x + right;
        const int there = y >= 0 && y < v->grid_y && x >= 0 && x < v->grid_x;
        inside[lane] = there && lane < images * tiles_of(v) ? -1 : 0;
    }
    memcpy(&mask, inside, sizeof mask);
    for (int32_t c = 0; c < v->channels; c++)
        for (int y = y0; y < y1; y++)
            for (int x = x0; x < x1; x++) {
                /* Lanes beyond the ends come from `vec`s beside it, and are masked. */
                vec *pixel = pixels + c * plane_of(v) + y * row + x;
                ivec moved;
                memcpy(&moved, (const float *)(pixel - back) + shift, sizeof moved);
                *pixel = (vec)(moved & mask);
            }
}
#endif

/* Fill what is around the tiles of a result that has just been computed. */
static void fill_rims(const struct frame *frame, const struct value *v) {
    const ptrdiff_t row = row_of(v);
    vec *pixels = pixels_of(frame, v);
    if (v->top + v->left + v->bottom + v->right == 0)
        return;
#if LANES > 1
    if (tiles_of(v) > 1) {
        for (int down = -1; down <= 1; down++)
            for (int right = -1; right <= 1; right++)
                if (down || right)
                    copy_rim(v, pixels, frame->images, down, right);
        return;
    }
#endif
    for (int32_t c = 0; c < v->channels; c++) {
        pixels = pixels_of(frame, v) + c * plane_of(v);
        clear(pixels - v->top * row - v->left, v->top * row);
        for (int y = 0; y < v->height; y++) {
            clear(pixels + y * row - v->left, v->left);
            clear(pixels + y * row + v->width, v->right);
        }
        clear(pixels + v->height * row - v->left, v->bottom * row);
    }
}

/* ---- Steps ---------------------------------------------------------------------------------- */

static void put_images(const struct frame *frame, const struct value *v, const float *images,
                       int count) {
    const ptrdiff_t wide = (ptrdiff_t)v->width * v->grid_x;
    const ptrdiff_t high = (ptrdiff_t)v->height * v->grid_y, size = v->channels * high * wide;
    const float *corners[LANES]; /* of the tile in each lane; NULL where there is none */
    for (int lane = 0; lane < LANES; lane++) {
        const int image = lane / tiles_of(v), tile = lane % tiles_of(v);
        const ptrdiff_t y = tile / v->grid_x * v->height, x = tile % v->grid_x * v->width;
        corners[lane] =
            image < count && image < frame->images ? images + image * size + y * wide + x : NULL;
    }
    for (int32_t c = 0; c < v->channels; c++)
        for (int y = 0; y < v->height; y++)
            for (int x = 0; x < v->width; x++) {
                const ptrdiff_t shift = (c * high + y) * wide + x;
                float lanes[LANES];
                for (int lane = 0; lane < LANES; lane++)
                    lanes[lane] = corners[lane] ? corners[lane][shift] : 0.0f;
                memcpy(pixels_of(frame, v) + c * plane_of(v) + y * row_of(v) + x, lanes,
                       sizeof lanes);
            }
}

/* Where a pixel of the whole image stands; `tile` becomes its tile. */
INLINE vec *pixel_at(const struct frame *frame, const struct value *v, int32_t c, int32_t y,
                     int32_t x, int32_t *tile) {
    *tile = y / v->height * v->grid_x + x / v->width;
    return pixels_of(frame, v) + c * plane_of(v) + y % v->height * row_of(v) + x % v->width;
}

/* Into another grid; or into a row of numbers, where there are other channels than before. */
static void move(const struct frame *frame, const struct value *from, const struct value *to) {
    const int flat = from->channels != to->channels;
    const int32_t high = from->height * from->grid_y, wide = from->width * from->grid_x;
    for (int32_t c = 0; c < to->channels; c++)
        for (int32_t y = 0; y < to->height; y++)
            clear(pixels_of(frame, to) + c * plane_of(to) + y * row_of(to), to->width);
    for (int32_t c = 0; c < from->channels; c++)
        for (int32_t y = 0; y < high; y++)
            for (int32_t x = 0; x < wide; x++) {
                int32_t tile, new_tile;
                const vec *in = pixel_at(frame, from, c, y, x, &tile);
                vec *out = flat ? pixel_at(frame, to, (c * high + y) * wide + x, 0, 0, &new_tile)
                                : pixel_at(frame, to, c, y, x, &new_tile);
                if (tiles_of(from) == 1 && tiles_of(to) == 1) {
                    *out = *in;
                    continue;
                }
                for (int32_t image = 0; image < frame->images; image++)
                    ((float *)out)[image * tiles_of(to) + new_tile] =
                        ((const float *)in)[image * tiles_of(from) + tile];
            }
}

static void get_logits(const struct frame *frame, const struct value *v, int count,
                       float *logits) {
    const int32_t high = v->height * v->grid_y, wide = v->width * v->grid_x;
    for (int32_t c = 0; c < v->channels; c++)
        for (int32_t y = 0; y < high; y++)
            for (int32_t x = 0; x < wide; x++) {
                const ptrdiff_t index = ((ptrdiff_t)c * high + y) * wide + x;
                int32_t tile;
                const float *in = (const float *)pixel_at(frame, v, c, y, x, &tile);
                for (int image = 0; image < count; image++)
                    logits[(ptrdiff_t)image * CLASSES + index] = in[image * tiles_of(v) + tile];
            }
}

static void map_channels(const struct frame *frame, const struct step *step,
                         const struct value *from, const struct value *other,
                         const struct value *to) {
    const struct map *map = maps + step->item;
    for (int32_t c = 0; c < to->channels; c++) {
        vec *out = pixels_of(frame, to) + c * plane_of(to);
        const int32_t taken = map->taken < 0 ? c : channels_taken[map->taken + c];
        const vec *in = pixels_of(frame, from) + (taken < 0 ? 0 : taken) * plane_of(from);
        const vec *more = other ? pixels_of(frame, other) + c * plane_of(other) : NULL;
        const float *scale = map->scale < 0 ? NULL : constants.value + map->scale + c;
        for (int y = 0; y < to->height; y++)
            for (int x = 0; x < to->width; x++) {
                vec value = taken < 0 ? ZERO : in[y * row_of(from) + x];
                if (scale)
                    value = value * scale[0] + scale[to->channels];
                if (more)
                    value += more[y * row_of(other) + x];
                activate(step->activation, step->slope, &value);
                out[y * row_of(to) + x] = value;
            }
    }
}

#if LANES > 1
/* One number of an image from those of its tiles, in the lanes of a result of one tile. */
static void gather_tiles(const struct frame *frame, const struct value *from, int largest,
                         vec *value) {
    float lanes[LANES], whole[LANES] = {0.0f};
    memcpy(lanes, value, sizeof lanes);
    for (int image = 0; image < frame->images; image++) {
        const float *tile = lanes + image * tiles_of(from);
        whole[image] = tile[0];
        for (int i = 1; i < tiles_of(from); i++)
            whole[image] = !largest ? whole[image] + tile[i]
                           : tile[i] <= whole[image] ? whole[image] : tile[i];
    }
    memcpy(value, whole, sizeof whole);
}
#endif

/* A result of one tile from several is that of a window over the whole image. */
static void pool_windows(const struct frame *frame, const struct pool *pool,
                         const struct value *from, const struct value *to) {
    for (int32_t c = 0; c < to->channels; c++)
        for (int y = 0; y < to->height; y++)
            for (int x = 0; x < to->width; x++) {
                const vec *in = pixels_of(frame, from) + c * plane_of(from);
                const int y0 = y * pool->stride_y - pool->pad_y;
                const int x0 = x * pool->stride_x - pool->pad_x;
                const int high = from->height + pool->pad_y, wide = from->width + pool->pad_x;
                const int y1 = y0 + pool->window_y < high ? y0 + pool->window_y : high;
                const int x1 = x0 + pool->window_x < wide ? x0 + pool->window_x : wide;
                float area = (float)(y1 - y0) * (float)(x1 - x0); /* with the padding */
                vec value = ZERO;
                int first = 1;
                for (int v = y0 < 0 ? 0 : y0; v < y1 && v < from->height; v++)
                    for (int u = x0 < 0 ? 0 : x0; u < x1 && u < from->width; u++) {
                        const vec pixel = in[v * row_of(from) + u];
                        if (!pool->largest)
                            value += pixel;
                        else if (first)
                            value = pixel;
                        else
                            value = choose(pixel <= value, value, pixel);
                        first = 0;
                    }
#if LANES > 1
                if (tiles_of(from) != tiles_of(to)) {
                    gather_tiles(frame, from, pool->largest, &value);
                    area *= (float)tiles_of(from);
                }
#endif
                if (!pool->largest)
                    value /= area;
                pixels_of(frame, to)[c * plane_of(to) + y * row_of(to) + x] = value;
            }
}

/* ---- The sparse layers ---------------------------------------------------------------------- */

/* The largest tile of pixels whose sums stay in registers, and its height's logarithm. */
#define SIDE 4
#if defined(__AVX512F__) || defined(__aarch64__) /* 32 registers */
#define TALLEST 2
#else /* perhaps 16 */
#define TALLEST 1
#endif

struct job {
    const float *weights;
    const uint16_t *codes, *counts;
    const float *bias;
    const int32_t *offsets;
    int32_t blocks, outputs, activation;
    float slope;
    ptrdiff_t in_block, in_row, out_plane, out_row, other_plane, other_row;
    vec *scratch;
};

static void activate_tile(const struct job *job, int height, int width, vec *out) {
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++)
            activate(job->activation, job->slope, out + y * job->out_row + x);
}

/* Compute a tile of H x W pixels of every output; H, W and the stride are known when this is
 * compiled. A weight is loaded once for all pixels; the sums wait in `scratch` from one block
 * of inputs to the next. */
INLINE void convolve_tile(const struct job *job, const int H, const int W, const int stride,
                          const vec *in, vec *out, const vec *other) {
    const float *weight = job->weights;
    const uint16_t *code = job->codes, *count = job->counts;
    const int32_t *offsets = job->offsets;
    const ptrdiff_t in_row = job->in_row;
    for (int32_t block = 0; block < job->blocks; block++) {
        const vec *corner = in + block * job->in_block;
        const int last = block == job->blocks - 1;
        for (int32_t o = 0; o < job->outputs; o++) {
            vec *waiting = job->scratch + (ptrdiff_t)o * (H * W);
            const int32_t n = *count++;
            vec sum[SIDE * SIDE];
            if (block == 0) {
                UNROLL
                for (int i = 0; i < H * W; i++)
                    sum[i] = ZERO + job->bias[o];
            } else if (n == 0 && !last) {
                continue;
            } else {
                UNROLL
                for (int i = 0; i < H * W; i++)
                    sum[i] = waiting[i];
            }
            int32_t i = 0;
            if (H * W == 1) { /* Additions to one sum would wait for each other. */
                vec more[3] = {ZERO, ZERO, ZERO};
                for (; i + 4 <= n; i += 4) {
                    sum[0] += corner[offsets[code[i]]] * weight[i];
                    more[0] += corner[offsets[code[i + 1]]] * weight[i + 1];
                    more[1] += corner[offsets[code[i + 2]]] * weight[i + 2];
                    more[2] += corner[offsets[code[i + 3]]] * weight[i + 3];
                }
                sum[0] += more[0] + (more[1] + more[2]);
            }
            for (; i < n; i++) {
                const vec *const row0 = corner + offsets[code[i]];
                const vec *const row1 = row0 + in_row;
                const vec *const row2 = row1 + in_row;
                const vec *const rows[SIDE] = {row0, row1, row2, row2 + in_row};
                const float w = weight[i];
                UNROLL
                for (int k = 0; k < H * W; k++)
                    sum[k] += rows[k / W][k % W * stride] * w;
            }
            weight += n;
            code += n;
            if (!last) {
                UNROLL
                for (int i = 0; i < H * W; i++)
                    waiting[i] = sum[i];
                continue;
            }
            if (other) {
                const vec *more = other + o * job->other_plane;
                UNROLL
                for (int i = 0; i < H * W; i++)
                    sum[i] += more[i / W * job->other_row + i % W];
            }
            if (job->activation == RELU) {
                UNROLL
                for (int i = 0; i < H * W; i++)
                    sum[i] = rectified(sum[i]);
            }
            UNROLL
            for (int i = 0; i < H * W; i++)
                out[o * job->out_plane + i / W * job->out_row + i % W] = sum[i];
            /* A call while sums are in registers would have the compiler keep them in memory. */
            if (job->activation > RELU)
                activate_tile(job, H, W, out + o * job->out_plane);
        }
    }
}

typedef void tile_function(const struct job *, const vec *, vec *, const vec *);

#define TILE(H, W, STRIDE)                                                                        \
    static void tile_##H##_##W##_##STRIDE(const struct job *job, const vec *in, vec *out,         \
                                          const vec *other) {                                     \
        convolve_tile(job, H, W, STRIDE, in, out, other);                                         \
    }
TILE(1, 1, 1) TILE(1, 2, 1) TILE(1, 4, 1) TILE(2, 1, 1) TILE(2, 2, 1) TILE(2, 4, 1)
TILE(4, 1, 1) TILE(4, 2, 1) TILE(4, 4, 1) TILE(1, 2, 2) TILE(1, 4, 2) TILE(2, 2, 2)
TILE(2, 4, 2) TILE(4, 2, 2) TILE(4, 4, 2)

/* By stride (1 or 2) and the logarithms of the sides. One column has no stride between columns. */
static tile_function *const tile_functions[2][3][3] = {
    {{tile_1_1_1, tile_1_2_1, tile_1_4_1},
     {tile_2_1_1, tile_2_2_1, tile_2_4_1},
     {tile_4_1_1, tile_4_2_1, tile_4_4_1}},
    {{tile_1_1_1, tile_1_2_2, tile_1_4_2},
     {tile_2_1_1, tile_2_2_2, tile_2_4_2},
     {tile_4_1_1, tile_4_2_2, tile_4_4_2}},
};

static void convolve(const struct frame *frame, const struct step *step,
                     const struct value *from, const struct value *other,
                     const struct value *to) {
    const struct layer *layer = layers + step->item;
    const int tall = to->height >= 4 ? TALLEST : to->height >= 2;
    const int wide = layer->stride_x > 2 ? 0 : to->width >= 4 ? 2 : to->width >= 2;
    tile_function *const tile = tile_functions[layer->stride_x == 2][tall][wide];
    const ptrdiff_t row = row_of(from), plane = plane_of(from);
    const vec *in = pixels_of(frame, from) - layer->pad_y * row - layer->pad_x;
    vec *out = pixels_of(frame, to);
    int32_t *offset = frame->offsets;
    struct job job = {
        .weights = weights.value + layer->weights,
        .codes = codes + layer->weights,
        .counts = counts + layer->counts,
        .bias = constants.value + layer->bias,
        .offsets = frame->offsets,
        .blocks = layer->blocks,
        .outputs = layer->outputs,
        .activation = step->activation,
        .slope = step->slope,
        .in_block = layer->block * plane,
        .in_row = layer->stride_y * row,
        .out_plane = plane_of(to),
        .out_row = row_of(to),
        .scratch = frame->scratch,
    };
    if (other) {
        job.other_plane = plane_of(other);
        job.other_row = row_of(other);
    }
    for (int32_t c = 0; c < layer->block; c++)
        for (int32_t y = 0; y < layer->kernel_y; y++)
            for (int32_t x = 0; x < layer->kernel_x; x++)
                *offset++ = (int32_t)(c * plane + y * row + x);
    /* The last tile of a row or column is moved back, over the one before: what both compute is
     * the same. */
    for (int32_t y = 0; y < to->height; y += 1 << tall)
        for (int32_t x = 0; x < to->width; x += 1 << wide) {
            const int32_t y0 = y + (1 << tall) <= to->height ? y : to->height - (1 << tall);
            const int32_t x0 = x + (1 << wide) <= to->width ? x : to->width - (1 << wide);
            tile(&job, in + y0 * job.in_row + x0 * layer->stride_x, out + y0 * job.out_row + x0,
                 other ? pixels_of(frame, other) + y0 * job.other_row + x0 : NULL);
        }
}

/* ---- A group of images ---------------------------------------------------------------------- */

static void run_group(struct frame *frame, const struct plan *plan, const float *images,
                      int count, float *logits) {
    const struct value *result = plan->values + plan->result;
    frame->images = LANES / (plan->grid_y * plan->grid_x);
    for (int32_t s = 0; s < plan->steps; s++) {
        const struct step *step = plan->step + s;
        const struct value *to = plan->values + step->out;
        const struct value *from = step->source < 0 ? NULL : plan->values + step->source;
        const struct value *other = step->other < 0 ? NULL : plan->values + step->other;
        switch (step->kind) {
        case INPUT:
            put_images(frame, to, images, count);
            break;
        case CONV:
            convolve(frame, step, from, other, to);
            break;
        case MAP:
            map_channels(frame, step, from, other, to);
            break;
        case POOL:
            pool_windows(frame, pools + step->item, from, to);
            break;
        default:
            move(frame, from, to);
        }
        fill_rims(frame, to);
    }
    get_logits(frame, result, count, logits);
}

/* ---- The interface -------------------------------------------------------------------------- */

#define ALIGNMENT 64
#define ROUNDED(bytes) (((bytes) + (ALIGNMENT - 1)) / ALIGNMENT * ALIGNMENT)

static const size_t scratch_bytes = ROUNDED((size_t)OUTPUTS * SIDE * SIDE * sizeof(vec));
static const size_t offsets_bytes = ROUNDED((size_t)OFFSETS * sizeof(int32_t));

/* Of a batch: `whole` groups of `images` by one plan, `rest` of `rest_images` by another. */
struct division {
    const struct plan *plan, *rest_plan;
    int whole, rest, images, rest_images;
};

/* The plan for a batch, of which a lane holds an image or a tile. A plan with fewer images in a
 * group has less to hold in the caches; so one with more has to be cheaper by some margin, and the
 * plans are in the order in which they are preferred. */
static const struct plan *cheapest(int batch) {
    const struct plan *best = NULL;
    double least = 0.0;
    for (size_t i = 0; i < sizeof plans / sizeof *plans; i++) {
        const int tiles = plans[i].grid_y * plans[i].grid_x, images = LANES / tiles;
        double cost;
        if (tiles > LANES)
            continue;
        cost = plans[i].cost * ((batch + images - 1) / images);
        if (!best || cost < 0.95 * least) {
            best = plans + i;
            least = cost;
        }
    }
    return best;
}

static struct division divided(int batch) {
    struct division d = {.plan = cheapest(LANES)};
    d.images = LANES / (d.plan->grid_y * d.plan->grid_x);
    d.whole = batch / LANES * (LANES / d.images);
    d.rest_plan = cheapest(batch % LANES);
    d.rest_images = LANES / (d.rest_plan->grid_y * d.rest_plan->grid_x);
    d.rest = (batch % LANES + d.rest_images - 1) / d.rest_images;
    return d;
}

static int threads_used(const struct division *d, int threads) {
#ifndef _OPENMP
    threads = 1;
#endif
    return threads < d->whole + d->rest ? threads : d->whole + d->rest;
}

/* Results, with a `vec` at either end that a rim may be read from. */
static size_t arena_bytes(const struct division *d) {
    const int32_t whole = d->whole ? d->plan->vectors : 0;
    const int32_t rest = d->rest ? d->rest_plan->vectors : 0;
    return ROUNDED(((size_t)(whole > rest ? whole : rest) + 2) * sizeof(vec));
}

static size_t thread_bytes(const struct division *d) {
    return arena_bytes(d) + scratch_bytes + offsets_bytes;
}

size_t sculpt_workspace_bytes(int batch, int threads) {
    if (batch < 1 || threads < 1)
        return 0;
    const struct division d = divided(batch);
    return thread_bytes(&d) * (size_t)threads_used(&d, threads);
}

static void run_one(const struct division *d, int group, const float *images, int batch,
                    float *logits, char *workspace) {
    const int by_rest = group >= d->whole;
    const struct plan *plan = by_rest ? d->rest_plan : d->plan;
    const int each = by_rest ? d->rest_images : d->images;
    const int first = by_rest ? batch / LANES * LANES + (group - d->whole) * each : group * each;
    struct frame frame = {
        .arena = (vec *)(void *)workspace + 1,
        .scratch = (vec *)(void *)(workspace + arena_bytes(d)),
        .offsets = (int32_t *)(void *)(workspace + arena_bytes(d) + scratch_bytes),
    };
    run_group(&frame, plan, images + (ptrdiff_t)first * IMAGE,
              batch - first < each ? batch - first : each, logits + (ptrdiff_t)first * CLASSES);
}

int sculpt_run(const float *images, int batch, float *logits, void *workspace,
               size_t workspace_bytes, int threads) {
    struct division d;
    int used;
    if (!images || !logits || !workspace)
        return SCULPT_NULL_POINTER;
    if (batch < 1)
        return SCULPT_NO_BATCH;
    if (threads < 1)
        return SCULPT_NO_THREADS;
    if ((uintptr_t)workspace % ALIGNMENT)
        return SCULPT_MISALIGNED;
    if (workspace_bytes < sculpt_workspace_bytes(batch, threads))
        return SCULPT_SMALL_WORKSPACE;
    d = divided(batch);
    used = threads_used(&d, threads);
#ifdef _OPENMP
    if (used > 1) {
#pragma omp parallel for num_threads(used) schedule(dynamic)
        for (int group = 0; group < d.whole + d.rest; group++)
            run_one(&d, group, images, batch, logits,
                    (char *)workspace + thread_bytes(&d) * (size_t)omp_get_thread_num());
        return 0;
    }
#endif
    (void)used;
    for (int group = 0; group < d.whole + d.rest; group++)
        run_one(&d, group, images, batch, logits, workspace);
    return 0;
}

const char *sculpt_info(void) { return INFO; }
