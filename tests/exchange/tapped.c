/* A program that taps, as an engine would: argv[1] says what. */
#include <goldenctl_tap.h>
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>

void tap_elsewhere(void); /* tapped_too.cpp: another translation unit, in C++ */

static void* many(void* thread) {
    float values[1000];
    int64_t shape[] = {10, 100};
    char name[32];
    int i, j;
    for (i = 0; i < 50; ++i) {
        for (j = 0; j < 1000; ++j) {
            values[j] = (float)(*(int*)thread * 1000 + i);
        }
        snprintf(name, sizeof name, "thread.%d.%d", *(int*)thread, i);
        goldenctl_tap(name, values, "float32", 2, shape, NULL);
    }
    return NULL;
}

int main(int argc, char** argv) {
    const char* what = argc > 1 ? argv[1] : "";
    float values[] = {0, 1, 2, 3, 4, 5};
    int64_t shape[] = {2, 3}, transposed[] = {3, 2}, strides[] = {1, 3}, empty[] = {0, 3};
    if (!strcmp(what, "kinds")) {
        goldenctl_tap("dense", values, "float32", 2, shape, NULL);
        goldenctl_tap("transposed", values, "float32", 2, transposed, strides);
        goldenctl_tap("scalar", values + 3, "float32", 0, NULL, NULL);
        goldenctl_tap("empty", values, "float32", 2, empty, NULL);
        goldenctl_tap("odd \"name\"\n\\", "abc", "uint8", 1, transposed, NULL);
        goldenctl_tap("dense", values + 3, "float32", 1, transposed, NULL); /* the next token */
        goldenctl_tap("strange", values, "float3", 2, shape, NULL);
    } else if (!strcmp(what, "threads")) {
        pthread_t threads[4];
        int numbers[] = {0, 1, 2, 3}, i;
        for (i = 0; i < 4; ++i) {
            pthread_create(&threads[i], NULL, many, &numbers[i]);
        }
        for (i = 0; i < 4; ++i) {
            pthread_join(threads[i], NULL);
        }
        tap_elsewhere();
    } else if (!strcmp(what, "fork")) {
        int child = 9;
        goldenctl_tap("parent", values, "float32", 2, shape, NULL);
        if (!fork()) {
            many(&child);
            _exit(0);
        }
        many(&child);
        wait(NULL);
    } else if (!strcmp(what, "die")) {
        goldenctl_tap("before", values, "float32", 2, shape, NULL);
        raise(SIGKILL);
    }
    return 0;
}
