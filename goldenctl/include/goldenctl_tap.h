/* Writes named tensors of a running program to a file that `goldenctl import` reads.
 *
 *     int64_t shape[] = {tokens, heads, head_dim};
 *     goldenctl_tap("layers.3.attention.q_proj", q, "bfloat16", 3, shape, NULL);
 *
 * Nothing happens unless $GOLDENCTL_TAPS names a file that does not exist yet; %p in it becomes
 * the process's number. Every call appends one tensor, in whatever thread, and a name may come
 * again (the next token, the next chunk). After a crash the file holds every tensor whose call
 * had returned. Errors are one line on stderr, once, and never stop the program.
 *
 * C99 or C++11, POSIX, nothing to link. -DGOLDENCTL_TAP_OFF compiles every call away.
 */
#ifndef GOLDENCTL_TAP_H
#define GOLDENCTL_TAP_H

#include <stdint.h>

#ifdef GOLDENCTL_TAP_OFF

static inline void goldenctl_tap(const char* name, const void* data, const char* dtype, int ndim,
                                 const int64_t* shape, const int64_t* strides) {
    (void)name, (void)data, (void)dtype, (void)ndim, (void)shape, (void)strides;
}

#else

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define GOLDENCTL_TAP_MAX_DIMS_ 8
#define GOLDENCTL_TAP_MAX_NAME_ 512

/* Weak, so that all translation units of a program share one file and one lock. */
struct goldenctl_tap_state_ {
    int ready; /* 0: the environment was not read yet */
    int fd;    /* -1: nothing is written */
    int lock;
};
#ifdef __cplusplus
extern "C" {
#endif
extern struct goldenctl_tap_state_ goldenctl_tap_state_1_;
__attribute__((weak)) struct goldenctl_tap_state_ goldenctl_tap_state_1_ = {0, -1, 0};
#ifdef __cplusplus
}
#endif

/* Say why nothing more is written, and write nothing more. Called with the lock held. */
static inline void goldenctl_tap_stop_(const char* name, const char* why) {
    fprintf(stderr, "goldenctl_tap: %s: %s; no more tensors are written\n", name, why);
    goldenctl_tap_state_1_.fd = -1;
}

static inline int goldenctl_tap_write_(int fd, const void* data, size_t size) {
    const char* next = (const char*)data;
    while (size) {
        ssize_t written = write(fd, next, size);
        if (written < 0 && errno == EINTR) {
            continue;
        }
        if (written < 0) {
            return 0;
        }
        next += written;
        size -= (size_t)written;
    }
    return 1;
}

/* Open the file that $GOLDENCTL_TAPS names. Called with the lock held. */
static inline void goldenctl_tap_open_(void) {
    const char* wanted = getenv("GOLDENCTL_TAPS");
    const char* number = wanted ? strstr(wanted, "%p") : NULL;
    char path[4096];
    int length, fd;
    if (!wanted || !*wanted) {
        return;
    }
    if (number) {
        length = snprintf(path, sizeof path, "%.*s%ld%s", (int)(number - wanted), wanted,
                          (long)getpid(), number + 2);
    } else {
        length = snprintf(path, sizeof path, "%s", wanted);
    }
    if (length < 0 || (size_t)length >= sizeof path) {
        goldenctl_tap_stop_("$GOLDENCTL_TAPS", "the path is too long");
        return;
    }
    fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0666);
    if (fd < 0) {
        goldenctl_tap_stop_(path, errno == EEXIST ? "the file exists already (remove it, or put %p "
                                                    "in $GOLDENCTL_TAPS for a file a process)"
                                                  : strerror(errno));
        return;
    }
    goldenctl_tap_state_1_.fd = fd;
    if (!goldenctl_tap_write_(fd, "goldenctl-log 1\n", 16)) {
        goldenctl_tap_stop_(path, strerror(errno));
    }
}

static inline size_t goldenctl_tap_itemsize_(const char* dtype) {
    static const struct {
        const char* name;
        size_t size;
    } known[] = {
        {"float32", 4}, {"float16", 2},       {"bfloat16", 2},    {"float64", 8}, {"int8", 1},
        {"int16", 2},   {"int32", 4},         {"int64", 8},       {"uint8", 1},   {"uint16", 2},
        {"bool", 1},    {"float8_e4m3fn", 1}, {"float8_e5m2", 1},
    };
    size_t i;
    for (i = 0; i < sizeof known / sizeof known[0]; ++i) {
        if (!strcmp(known[i].name, dtype)) {
            return known[i].size;
        }
    }
    return 0;
}

/* CRC-32 as in zlib. */
static inline uint32_t goldenctl_tap_crc_(const char* data, size_t size) {
    uint32_t crc = 0xFFFFFFFFu;
    size_t i;
    int bit;
    for (i = 0; i < size; ++i) {
        crc ^= (unsigned char)data[i];
        for (bit = 0; bit < 8; ++bit) {
            crc = (crc >> 1) ^ (0xEDB88320u & (0u - (crc & 1u)));
        }
    }
    return ~crc;
}

/* Write the name as a JSON string; return its size. `out` holds 6 bytes for each of the name's. */
static inline int goldenctl_tap_quote_(char* out, const char* name) {
    char* next = out;
    *next++ = '"';
    for (; *name; ++name) {
        unsigned char c = (unsigned char)*name;
        if (c < 0x20 || c == '"' || c == '\\') {
            next += sprintf(next, "\\u%04x", c);
        } else {
            *next++ = (char)c;
        }
    }
    *next++ = '"';
    return (int)(next - out);
}

/* Write frame and header of a record. */
static inline int goldenctl_tap_header_(const char* name, const char* dtype, int ndim,
                                        const int64_t* shape, uint64_t payload_bytes) {
    char text[16 + 6 * GOLDENCTL_TAP_MAX_NAME_ + 24 * (GOLDENCTL_TAP_MAX_DIMS_ + 4)];
    unsigned char frame[24];
    uint64_t fields[4];
    int size = sprintf(text, "{\"kind\":\"tap\",\"name\":");
    int i, byte, at = 0;
    static const int widths[] = {4, 4, 8, 8};
    size += goldenctl_tap_quote_(text + size, name);
    size += sprintf(text + size, ",\"dtype\":\"%s\",\"shape\":[", dtype);
    for (i = 0; i < ndim; ++i) {
        size += sprintf(text + size, "%s%lld", i ? "," : "", (long long)shape[i]);
    }
    size += sprintf(text + size, "]}");
    while (size % 8) {
        text[size++] = ' ';
    }
    fields[0] = 0x474C5443u;
    fields[1] = (uint64_t)size;
    fields[2] = payload_bytes;
    fields[3] = goldenctl_tap_crc_(text, (size_t)size);
    for (i = 0; i < 4; ++i) { /* little endian on every machine */
        for (byte = 0; byte < widths[i]; ++byte) {
            frame[at++] = (unsigned char)(fields[i] >> (8 * byte));
        }
    }
    return goldenctl_tap_write_(goldenctl_tap_state_1_.fd, frame, sizeof frame) &&
           goldenctl_tap_write_(goldenctl_tap_state_1_.fd, text, (size_t)size);
}

/* Write the elements in row-major order, packed through a small buffer where strides ask for it. */
static inline int goldenctl_tap_elements_(const char* data, size_t item, int ndim,
                                          const int64_t* shape, const int64_t* strides,
                                          uint64_t count) {
    char buffer[16384];
    int64_t index[GOLDENCTL_TAP_MAX_DIMS_] = {0};
    int64_t dense = 1;
    size_t used = 0;
    int axis, packed = 1;
    for (axis = ndim - 1; axis >= 0; --axis) {
        packed = packed && (!strides || strides[axis] == dense || shape[axis] == 1);
        dense *= shape[axis];
    }
    if (packed) {
        return goldenctl_tap_write_(goldenctl_tap_state_1_.fd, data, (size_t)count * item);
    }
    for (; count; --count) {
        int64_t offset = 0;
        for (axis = 0; axis < ndim; ++axis) {
            offset += index[axis] * strides[axis];
        }
        memcpy(buffer + used, data + offset * (int64_t)item, item);
        used += item;
        if (used + item > sizeof buffer || count == 1) {
            if (!goldenctl_tap_write_(goldenctl_tap_state_1_.fd, buffer, used)) {
                return 0;
            }
            used = 0;
        }
        for (axis = ndim - 1; axis >= 0 && ++index[axis] == shape[axis]; --axis) {
            index[axis] = 0;
        }
    }
    return 1;
}

/* Take or give the file's lock among processes: flock's would be one for parent and child. */
static inline void goldenctl_tap_lock_(int fd, short kind) {
    struct flock lock;
    memset(&lock, 0, sizeof lock);
    lock.l_type = kind;
    lock.l_whence = SEEK_SET;
    while (fcntl(fd, F_SETLKW, &lock) == -1 && errno == EINTR) {
    }
}

/* Append one record; a record that cannot be written whole is taken back. Lock held. */
static inline void goldenctl_tap_append_(const char* name, const void* data, const char* dtype,
                                         int ndim, const int64_t* shape, const int64_t* strides) {
    int fd = goldenctl_tap_state_1_.fd;
    size_t item = goldenctl_tap_itemsize_(dtype);
    uint64_t count = 1, bytes;
    off_t start;
    int axis;
    if (!item || ndim < 0 || ndim > GOLDENCTL_TAP_MAX_DIMS_ ||
        strlen(name) > GOLDENCTL_TAP_MAX_NAME_) {
        fprintf(stderr, "goldenctl_tap: %.80s: not written: %s\n", name,
                item ? "expected at most 8 axes and 512 bytes of name" : "unknown dtype");
        return;
    }
    for (axis = 0; axis < ndim; ++axis) {
        count *= shape[axis] < 0 ? 0 : (uint64_t)shape[axis];
    }
    bytes = count * item;
    goldenctl_tap_lock_(fd, F_WRLCK); /* against a child of fork, which has the file too */
    start = lseek(fd, 0, SEEK_END);
    if (!goldenctl_tap_header_(name, dtype, ndim, shape, bytes) ||
        !goldenctl_tap_elements_((const char*)data, item, ndim, shape, strides, count) ||
        !goldenctl_tap_write_(fd, "\0\0\0\0\0\0\0", (size_t)((8 - bytes % 8) % 8))) {
        int failed = errno;
        if (ftruncate(fd, start) != 0) {
            failed = errno;
        }
        goldenctl_tap_stop_(name, strerror(failed));
    }
    goldenctl_tap_lock_(fd, F_UNLCK);
}

/* Append one tensor to the file that $GOLDENCTL_TAPS names.
 *
 * name     what it is, such as layers.3.attention.q_proj; at most 512 bytes of UTF-8
 * data     its first element, in the host's memory: copy it there from a device before
 * dtype    float32, float16, bfloat16, float64, int8..int64, uint8, uint16, bool,
 *          float8_e4m3fn or float8_e5m2
 * shape    ndim sizes, at most 8
 * strides  ndim strides in elements, or NULL for row-major
 */
static inline void goldenctl_tap(const char* name, const void* data, const char* dtype, int ndim,
                                 const int64_t* shape, const int64_t* strides) {
    struct goldenctl_tap_state_* state = &goldenctl_tap_state_1_;
    int error;
    if (__atomic_load_n(&state->ready, __ATOMIC_ACQUIRE) &&
        __atomic_load_n(&state->fd, __ATOMIC_RELAXED) < 0) {
        return;
    }
    error = errno;
    while (__atomic_exchange_n(&state->lock, 1, __ATOMIC_ACQUIRE)) {
        sched_yield();
    }
    if (!state->ready) {
        goldenctl_tap_open_();
        __atomic_store_n(&state->ready, 1, __ATOMIC_RELEASE);
    }
    if (state->fd >= 0) {
        goldenctl_tap_append_(name, data, dtype, ndim, shape, strides);
    }
    __atomic_store_n(&state->lock, 0, __ATOMIC_RELEASE);
    errno = error;
}

#endif /* GOLDENCTL_TAP_OFF */
#endif /* GOLDENCTL_TAP_H */
