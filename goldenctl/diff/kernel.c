/* The compiled form of the metrics: one pass over two arrays, float64 accumulation.
 *
 * Plain C without Python.h, called through ctypes (which releases the GIL); _numpy.py holds
 * the same arithmetic in NumPy. Built with -ffp-contract=off and a fixed number of lanes, so
 * every instruction set gives the same sums. A block of BLOCK elements is converted into
 * small buffers in the first cache level and judged there.
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(_WIN32)
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && defined(__linux__)
#define CLONES __attribute__((target_clones("avx2", "default")))
#else
#define CLONES
#endif

enum { BLOCK = 1024, LANES = 4 };
enum { F64 = 0, F32 = 1, BF16 = 2, F16 = 3 };

typedef double f64x4 __attribute__((vector_size(32)));
typedef int64_t i64x4 __attribute__((vector_size(32)));

/* Mirrored by _kernel.Partial; all 8 bytes wide, so there is no padding. */
typedef struct {
    double actual_squared, expected_squared, dot, error_squared, error_sum;
    double max_error, max_expected;
    int64_t worst_index;    /* first index of max_error, -1 when nothing was compared */
    int64_t first_mismatch; /* first index where the finite masks differ, -1 for none */
    uint64_t max_ulp;
    int64_t compared, outside, mismatches;
    int64_t nan_actual, inf_actual, nan_expected, inf_expected;
} partial_t;

typedef struct {
    double actual_squared, expected_squared, dot, error_squared, error_sum;
    double max_error, max_expected;
    double signed_error, units, units_squared; /* as RowErrors has them, in powers of two */
    int64_t inside;
} sums_t;

static int64_t item_bytes(int type) { return type == F64 ? 8 : type == F32 ? 4 : 2; }

/* ---- conversions, a block at a time --------------------------------------------------- */

CLONES static void bf16_to_f32(const uint16_t *restrict in, float *restrict out, int n) {
    for (int i = 0; i < n; i++) {
        uint32_t bits = (uint32_t)in[i] << 16;
        memcpy(&out[i], &bits, 4);
    }
}

/* Exact for finite values; the caller has removed or counted the others by their bits. */
CLONES static void f16_to_f32(const uint16_t *restrict in, float *restrict out, int n) {
    for (int i = 0; i < n; i++) {
        uint32_t bits = (uint32_t)(in[i] & 0x7fff) << 13;
        bits = bits >= 0x0f800000u ? bits | 0x7f800000u : bits;
        float value;
        memcpy(&value, &bits, 4);
        value *= 0x1p112f; /* 2**(127 - 15): moves the exponent bias, makes subnormals normal */
        memcpy(&bits, &value, 4);
        bits |= (uint32_t)(in[i] & 0x8000) << 16;
        memcpy(&out[i], &bits, 4);
    }
}

CLONES static void f32_to_f64(const float *restrict in, double *restrict out, int n) {
    for (int i = 0; i < n; i++) out[i] = in[i];
}

CLONES static void f64_to_f32(const double *restrict in, float *restrict out, int n) {
    for (int i = 0; i < n; i++) out[i] = (float)in[i];
}

CLONES static void f32_to_bf16(const float *restrict in, uint16_t *restrict out, int n) {
    for (int i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &in[i], 4);
        uint32_t rounded = bits + 0x7fffu + ((bits >> 16) & 1u); /* to nearest even */
        rounded = (bits & 0x7fffffffu) > 0x7f800000u ? bits | 0x400000u : rounded;
        out[i] = (uint16_t)(rounded >> 16);
    }
}

/* Round to nearest even. Scalar: used only to count ULPs of a wider run against float16. */
static void f32_to_f16(const float *in, uint16_t *out, int n) {
    for (int i = 0; i < n; i++) {
        uint32_t bits, sign;
        memcpy(&bits, &in[i], 4);
        sign = (bits >> 16) & 0x8000u;
        bits &= 0x7fffffffu;
        if (bits >= 0x47800000u) { /* 65536 and above */
            bits = 0x7c00u;
        } else if (bits < 0x38800000u) { /* subnormal: let the adder round */
            float value;
            memcpy(&value, &bits, 4);
            value += 0.5f;
            memcpy(&bits, &value, 4);
            bits -= 0x3f000000u;
        } else {
            bits += 0xc8000fffu + ((bits >> 13) & 1u);
            bits >>= 13;
        }
        out[i] = (uint16_t)(bits | sign);
    }
}

/* ---- ULP distance and the largest magnitude, on the bits ------------------------------ */

/* The floats of one type, in order, as integers: -0 and +0 both map to 0. `*top` becomes the
 * largest magnitude of either side; INF's bits and above are not finite. */
#define DEFINE_ULP(name, uint, sint, width)                                                \
    CLONES static uint64_t name(const uint *a, const uint *e, int n, uint64_t *top) {      \
        const uint magnitude = (uint)((uint)-1 >> 1);                                      \
        uint worst = 0, high = 0;                                                          \
        for (int i = 0; i < n; i++) {                                                      \
            uint ga = (uint)(a[i] & magnitude), ge = (uint)(e[i] & magnitude);             \
            sint ma = (sint)((sint)a[i] >> (width - 1)), me = (sint)((sint)e[i] >> (width - 1)); \
            sint x = (sint)(uint)((uint)(ga ^ (uint)ma) - (uint)ma);                       \
            sint y = (sint)(uint)((uint)(ge ^ (uint)me) - (uint)me);                       \
            sint upper = x > y ? x : y, lower = x > y ? y : x;                             \
            uint distance = (uint)((uint)upper - (uint)lower);                             \
            worst = distance > worst ? distance : worst;                                   \
            high = ga > high ? ga : high;                                                  \
            high = ge > high ? ge : high;                                                  \
        }                                                                                  \
        *top = high;                                                                       \
        return worst;                                                                      \
    }
DEFINE_ULP(ulp_16, uint16_t, int16_t, 16)
DEFINE_ULP(ulp_32, uint32_t, int32_t, 32)
DEFINE_ULP(ulp_64, uint64_t, int64_t, 64)

static const uint64_t INFINITY_BITS[] = {0x7ff0000000000000u, 0x7f800000u, 0x7f80u, 0x7c00u};

static uint64_t ulp(int type, const void *a, const void *e, int n, uint64_t *top) {
    if (type == F64) return ulp_64(a, e, n, top);
    if (type == F32) return ulp_32(a, e, n, top);
    return ulp_16(a, e, n, top);
}

static uint64_t bits_at(int type, const void *data, int i) {
    if (type == F64) return ((const uint64_t *)data)[i] & 0x7fffffffffffffffu;
    if (type == F32) return ((const uint32_t *)data)[i] & 0x7fffffffu;
    return ((const uint16_t *)data)[i] & 0x7fffu;
}

/* ---- sums ----------------------------------------------------------------------------- */

/* Macros, since passing 32-byte vectors between functions depends on the instruction set. */
#define LARGER(x, y) \
    ((f64x4)((((x) > (y)) & (i64x4)(x)) | (~((x) > (y)) & (i64x4)(y))))
#define EXPONENT 0x7ff0000000000000 /* of a float64: what is left of |y| is a power of two */
#define LANE_SUM(v) (((v)[0] + (v)[1]) + ((v)[2] + (v)[3]))

static double largest(const double *lanes) {
    double top = lanes[0];
    for (int i = 1; i < LANES; i++) top = lanes[i] > top ? lanes[i] : top;
    return top;
}

/* One vector of each side; the converting initializer becomes a single instruction. */
#define STEP(a, e)                                                                         \
    do {                                                                                   \
        f64x4 x = {(a)[0], (a)[1], (a)[2], (a)[3]}, y = {(e)[0], (e)[1], (e)[2], (e)[3]};  \
        f64x4 d = x - y;                                                                   \
        f64x4 error = (f64x4)((i64x4)d & magnitude);                                       \
        f64x4 size = (f64x4)((i64x4)y & magnitude);                                        \
        f64x4 unit = (f64x4)((i64x4)y & exponent);                                         \
        away += (f64x4)((i64x4)d ^ ((i64x4)y & ~magnitude));                               \
        units += unit;                                                                     \
        uu += unit * unit;                                                                 \
        aa += x * x;                                                                       \
        ee += y * y;                                                                       \
        ae += x * y;                                                                       \
        dd += d * d;                                                                       \
        sum += error;                                                                      \
        inside -= error <= at + rt * size;                                                 \
        top = LARGER(error, top);                                                          \
        scale = LARGER(size, scale);                                                       \
    } while (0)

/* Sums of one block of finite values. A tail shorter than a vector is padded with zeros on
 * both sides, which adds nothing to any sum; `inside` is corrected for it. */
#define DEFINE_SUMS(name, real)                                                            \
    CLONES static void name(const real *a, const real *e, int n, double atol, double rtol, \
                            sums_t *out) {                                                 \
        const i64x4 magnitude = {INT64_MAX, INT64_MAX, INT64_MAX, INT64_MAX};              \
        const i64x4 exponent = {EXPONENT, EXPONENT, EXPONENT, EXPONENT};                   \
        f64x4 away = {0}, units = {0}, uu = {0};                                           \
        const f64x4 at = {atol, atol, atol, atol}, rt = {rtol, rtol, rtol, rtol};          \
        f64x4 aa = {0}, ee = {0}, ae = {0}, dd = {0}, sum = {0}, top = {0}, scale = {0};   \
        i64x4 inside = {0};                                                                \
        int body = n / LANES * LANES, rest = n - body;                                     \
        for (int i = 0; i < body; i += LANES) STEP(a + i, e + i);                          \
        if (rest) {                                                                        \
            real tail_a[LANES] = {0}, tail_e[LANES] = {0};                                 \
            memcpy(tail_a, a + body, (size_t)rest * sizeof *a);                            \
            memcpy(tail_e, e + body, (size_t)rest * sizeof *e);                            \
            STEP(tail_a, tail_e);                                                          \
        }                                                                                  \
        double tops[LANES], scales[LANES];                                                 \
        memcpy(tops, &top, sizeof tops);                                                   \
        memcpy(scales, &scale, sizeof scales);                                             \
        out->actual_squared = LANE_SUM(aa);                                                \
        out->expected_squared = LANE_SUM(ee);                                              \
        out->dot = LANE_SUM(ae);                                                           \
        out->error_squared = LANE_SUM(dd);                                                 \
        out->error_sum = LANE_SUM(sum);                                                    \
        out->signed_error = LANE_SUM(away);                                                \
        out->units = LANE_SUM(units);                                                      \
        out->units_squared = LANE_SUM(uu);                                                 \
        out->max_error = largest(tops);                                                    \
        out->max_expected = largest(scales);                                               \
        out->inside = LANE_SUM(inside) - (rest ? LANES - rest : 0);                        \
    }
DEFINE_SUMS(sums_f32, float)
DEFINE_SUMS(sums_f64, double)

/* ---- a block -------------------------------------------------------------------------- */

typedef union {
    double f64[BLOCK];
    float f32[BLOCK];
    uint16_t u16[BLOCK];
} buffer_t;

typedef struct {
    buffer_t raw_a, raw_e;     /* copies with non-finite positions set to zero */
    buffer_t wide_a, wide_e;   /* both sides in the type of the arithmetic */
    buffer_t round_a, staging; /* actual rounded to expected's type, for ULPs */
} scratch_t;

static const void *widen(int from, int to, const void *in, buffer_t *out, buffer_t *staging,
                         int n) {
    if (from == to) return in;
    float *single = to == F64 ? staging->f32 : out->f32;
    const float *middle = single;
    if (from == F32) middle = in;
    if (from == BF16) bf16_to_f32(in, single, n);
    if (from == F16) f16_to_f32(in, single, n);
    if (to == F32) return middle;
    f32_to_f64(middle, out->f64, n);
    return out->f64;
}

/* Convert the widened actual to expected's type; float64 goes to 16 bits by way of float32. */
static const void *narrow(int wide, int to, const void *in, scratch_t *s, int n) {
    if (wide == to) return in;
    const float *single = in;
    if (wide == F64) {
        f64_to_f32(in, to == F32 ? s->round_a.f32 : s->staging.f32, n);
        if (to == F32) return s->round_a.f32;
        single = s->staging.f32;
    }
    if (to == BF16) f32_to_bf16(single, s->round_a.u16, n);
    if (to == F16) f32_to_f16(single, s->round_a.u16, n);
    return s->round_a.u16;
}

static int sign_at(int type, const void *data, int i) {
    const unsigned char *p = (const unsigned char *)data + (i + 1) * item_bytes(type) - 1;
    return *p >> 7;
}

/* 0 finite, 1 NaN, 2 +Inf, 3 -Inf */
static int class_at(int type, const void *data, int i) {
    uint64_t bits = bits_at(type, data, i);
    if (bits < INFINITY_BITS[type]) return 0;
    if (bits > INFINITY_BITS[type]) return 1;
    return 2 + sign_at(type, data, i);
}

/* Count what is not finite, and zero those positions on both sides of the copies. */
static int64_t sanitize(int ta, int te, buffer_t *a, buffer_t *e, int n, int64_t start,
                        partial_t *out) {
    int64_t removed = 0;
    for (int i = 0; i < n; i++) {
        int ca = class_at(ta, a, i), ce = class_at(te, e, i);
        if (ca == 0 && ce == 0) continue;
        out->nan_actual += ca == 1;
        out->inf_actual += ca >= 2;
        out->nan_expected += ce == 1;
        out->inf_expected += ce >= 2;
        if (ca != ce) {
            if (out->first_mismatch < 0) out->first_mismatch = start + i;
            out->mismatches++;
            out->outside++;
        }
        memset((char *)a + i * item_bytes(ta), 0, (size_t)item_bytes(ta));
        memset((char *)e + i * item_bytes(te), 0, (size_t)item_bytes(te));
        removed++;
    }
    return removed;
}

static int find(int wide, const void *a, const void *e, int n, double error) {
    for (int i = 0; i < n; i++) {
        double x = wide == F64 ? ((const double *)a)[i] : ((const float *)a)[i];
        double y = wide == F64 ? ((const double *)e)[i] : ((const float *)e)[i];
        double d = x - y;
        if ((d < 0 ? -d : d) == error) return i;
    }
    return 0;
}

static void merge(const sums_t *sums, int64_t n, int64_t removed, partial_t *out) {
    out->actual_squared += sums->actual_squared;
    out->expected_squared += sums->expected_squared;
    out->dot += sums->dot;
    out->error_squared += sums->error_squared;
    out->error_sum += sums->error_sum;
    out->compared += n - removed;
    out->outside += n - sums->inside;
    if (sums->max_expected > out->max_expected) out->max_expected = sums->max_expected;
}

static void score_block(int ta, int te, const void *a, const void *e, int n, int64_t start,
                        double atol, double rtol, scratch_t *s, partial_t *out, sums_t *sums) {
    int wide = ta == F64 || te == F64 ? F64 : F32;
    int64_t removed = 0;
    uint64_t top, distance;
    const void *x, *y;
    for (int clean = 0;; clean = 1) {
        x = widen(ta, wide, a, &s->wide_a, &s->staging, n);
        y = widen(te, wide, e, &s->wide_e, &s->staging, n);
        distance = ulp(te, ta == te ? a : narrow(wide, te, x, s, n), e, n, &top);
        if (clean || top < INFINITY_BITS[te]) break;
        a = memcpy(&s->raw_a, a, (size_t)(n * item_bytes(ta)));
        e = memcpy(&s->raw_e, e, (size_t)(n * item_bytes(te)));
        removed = sanitize(ta, te, &s->raw_a, &s->raw_e, n, start, out);
    }
    if (wide == F64) sums_f64(x, y, n, atol, rtol, sums);
    else sums_f32(x, y, n, atol, rtol, sums);
    if (distance > out->max_ulp) out->max_ulp = distance;
    if (sums->max_error > out->max_error) {
        out->max_error = sums->max_error;
        out->worst_index = start + find(wide, x, y, n, sums->max_error);
    }
    merge(sums, n, removed, out);
}

/* ---- entry points --------------------------------------------------------------------- */

/* Where the sums of each row go, by row of the whole array; mirrored by RowErrors. */
typedef struct {
    double *error_squared, *max_error, *expected_squared, *signed_error, *units, *units_squared;
} rows_t;

/* Score elements [start, end) of two arrays. With row_length > 0, start is a row's first
 * element and the arrays of `rows` are filled. Positions
 * that are not finite on both sides count as zero error and zero size there. */
EXPORT void goldenctl_score(int ta, int te, const void *actual, const void *expected,
                            int64_t start, int64_t end, double atol, double rtol,
                            int64_t row_length, rows_t rows, partial_t *out) {
    scratch_t scratch;
    memset(out, 0, sizeof *out);
    out->worst_index = out->first_mismatch = -1;
    int64_t row_end = row_length > 0 ? start + row_length : end;
    double error = 0, top = 0, size = 0, away = 0, units = 0, squares = 0;
    for (int64_t at = start; at < end;) {
        int64_t left = row_end - at;
        int n = left < BLOCK ? (int)left : BLOCK;
        sums_t sums;
        score_block(ta, te, (const char *)actual + at * item_bytes(ta),
                    (const char *)expected + at * item_bytes(te), n, at, atol, rtol, &scratch,
                    out, &sums);
        at += n;
        if (row_length <= 0) continue;
        error += sums.error_squared;
        size += sums.expected_squared;
        away += sums.signed_error;
        units += sums.units;
        squares += sums.units_squared;
        top = sums.max_error > top ? sums.max_error : top;
        if (at < row_end) continue;
        int64_t row = row_end / row_length - 1;
        rows.error_squared[row] = error;
        rows.max_error[row] = top;
        rows.expected_squared[row] = size;
        rows.signed_error[row] = away;
        rows.units[row] = units;
        rows.units_squared[row] = squares;
        error = top = size = away = units = squares = 0;
        row_end += row_length;
    }
}

/* Read memory and add it up: the benchmark's measure of what the machine's memory gives. */
CLONES EXPORT uint64_t goldenctl_read_sum(const uint64_t *data, int64_t words) {
    uint64_t sum = 0;
    for (int64_t i = 0; i < words; i++) sum += data[i];
    return sum;
}

/* Tells a library of another version, whose structures differ. */
EXPORT int64_t goldenctl_struct_bytes(void) {
    return (int64_t)(sizeof(partial_t) + sizeof(rows_t));
}
