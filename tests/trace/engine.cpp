// A program that adds on InfiniCore, and ends in as many ways as programs do.
#include <dlfcn.h>
#include <infinicore.h>
#include <infiniop/handle.h>
#include <infiniop/ops/add.h>
#include <infiniop/ops/attention.h>
#include <infiniop/ops/gemm.h>
#include <infiniop/ops/rearrange.h>
#include <infinirt.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

namespace {

infiniopHandle_t handle;

void check(infiniStatus_t status) {
    if (status != INFINI_STATUS_SUCCESS) std::printf("status %d\n", status), std::exit(9);
}

infiniopTensorDescriptor_t describe(std::vector<size_t> shape, std::vector<ptrdiff_t> strides) {
    infiniopTensorDescriptor_t made;
    check(infiniopCreateTensorDescriptor(&made, shape.size(), shape.data(), strides.data(),
                                         INFINI_DTYPE_F32));
    return made;
}

// c = a + b of [2, 3]; the tensors' descriptors go before the launch, as engines let them.
void add(float* c, const float* a, const float* b) {
    auto row = describe({2, 3}, {3, 1});
    infiniopAddDescriptor_t op;
    check(infiniopCreateAddDescriptor(handle, &op, row, row, row));
    check(infiniopDestroyTensorDescriptor(row));
    check(infiniopAdd(op, nullptr, 0, c, a, b, nullptr));
    check(infiniopDestroyAddDescriptor(op));
}

void adds(int count, float start) {
    for (int i = 0; i < count; ++i) {
        float a[6] = {start, 2, 3, 4, 5, 6}, b[6] = {1, 1, 1, 1, 1, float(i)}, c[6];
        add(c, a, b);
    }
}

// Into c with what was there, out of place: y = 2 x w + 3 y, w [2, 4] as a transposed view.
void product() {
    float x[6] = {1, 2, 3, 4, 5, 6}, w[12] = {1, 0, 0, 0, 1, 0, 0, 0, 1, 1, 1, 1};
    float y[8] = {1, 1, 1, 1, 1, 1, 1, 1};
    infiniopGemmDescriptor_t op;
    check(infiniopCreateGemmDescriptor(handle, &op, describe({2, 4}, {4, 1}),
                                       describe({2, 3}, {3, 1}), describe({3, 4}, {1, 3})));
    check(infiniopGemm(op, nullptr, 0, y, x, w, 2.0f, 3.0f, nullptr));
    check(infiniopGemm(op, nullptr, 0, y, x, w, 1.0f, 0.0f, nullptr));
}

// A bias that is broadcast over rows, into every other column; then in place.
void views() {
    float bias[3] = {7, 8, 9}, wide[12] = {};
    infiniopRearrangeDescriptor_t op;
    check(infiniopCreateRearrangeDescriptor(handle, &op, describe({2, 3}, {6, 2}),
                                            describe({2, 3}, {0, 1})));
    check(infiniopRearrange(op, wide, bias, nullptr));
    float a[6] = {1, 2, 3, 4, 5, 6}, b[6] = {1, 1, 1, 1, 1, 1};
    add(a, a, b);
}

// Two query heads that share a key head: a prefill of two tokens, then one more over the cache.
void attention() {
    float k_cache[12] = {}, v_cache[12] = {}, workspace[1 << 12];
    for (size_t past = 0, tokens = 2; past < 3; past += tokens, tokens = 1) {
        float out[16], q[16], k[8], v[8];
        for (size_t i = 0; i < 16; ++i) q[i] = float(i % 5) - float(past);
        for (size_t i = 0; i < 8; ++i) k[i] = float(i % 3), v[i] = float(i) + 8 * float(past);
        auto D = ptrdiff_t(4), T = ptrdiff_t(tokens);
        infiniopAttentionDescriptor_t op;
        check(infiniopCreateAttentionDescriptor(
            handle, &op, describe({tokens, 2, 4}, {2 * D, D, 1}),
            describe({2, tokens, 4}, {T * D, D, 1}), describe({1, tokens, 4}, {T * D, D, 1}),
            describe({1, tokens, 4}, {T * D, D, 1}), describe({1, 3, 4}, {3 * D, D, 1}),
            describe({1, 3, 4}, {3 * D, D, 1}), past));
        check(infiniopAttention(op, workspace, sizeof workspace, out, q, k, v, k_cache, v_cache,
                                nullptr));
    }
}

void memory() {
    float host[6] = {1, 2, 3, 4, 5, 6};
    void* device;
    check(infinirtMalloc(&device, sizeof host));
    check(infinirtMemcpy(device, host, sizeof host, INFINIRT_MEMCPY_H2D));
    add(static_cast<float*>(device), static_cast<float*>(device), host);
    check(infinirtMemcpy(host, device, sizeof host, INFINIRT_MEMCPY_D2H));
    // A view that ends beyond its memory is InfiniCore's to read, not the trace's.
    infiniopAddDescriptor_t op;
    auto beyond = describe({2, 4}, {4, 1});
    check(infiniopCreateAddDescriptor(handle, &op, beyond, beyond, beyond));
    float room[16] = {};
    check(infiniopAdd(op, nullptr, 0, room, room, static_cast<float*>(device) + 2, nullptr));
    check(infinirtFree(device));
}

// Weights that are read from a file of float32 as [rows, 64], then changed where they are.
void weights(const char* path) {
    std::vector<float> w(4 << 18), x(64, 1.0f), y(4 << 12);
    FILE* file = std::fopen(path, "rb");
    size_t rows = std::fread(w.data(), 256, w.size() / 64, file);
    std::fclose(file);
    infiniopGemmDescriptor_t op;
    check(infiniopCreateGemmDescriptor(handle, &op, describe({1, rows}, {ptrdiff_t(rows), 1}),
                                       describe({1, 64}, {64, 1}), describe({64, rows}, {1, 64})));
    for (int pass = 0; pass < 6; ++pass) {
        check(infiniopGemm(op, nullptr, 0, y.data(), x.data(), w.data(), 1.0f, 0.0f, nullptr));
        if (pass == 4) std::fill(w.begin(), w.end(), 0.5f);
    }
}

// A function after the caller's own library is not the same as one after another's.
void lookups() {
    if (dlsym(RTLD_NEXT, "getpid") != dlsym(RTLD_DEFAULT, "getpid")) std::exit(8);
    if (dlsym(RTLD_NEXT, "main") || !dlsym(RTLD_NEXT, "dlsym")) std::exit(8);
    if (dlsym(RTLD_DEFAULT, "infiniopNoSuchThing")) std::exit(8);
}

}  // namespace

int main(int argc, char** argv) {
    std::string how = argc > 1 ? argv[1] : "well";
    if (how == "nothing") return 0;
    check(infinirtInit());
    check(infinirtSetDevice(INFINI_DEVICE_CPU, 0));
    check(infiniopCreateHandle(&handle));
    if (how == "handle") return 0;
    if (how == "lookups") lookups();
    if (how == "product") product();
    if (how == "views") views();
    if (how == "memory") memory();
    if (how == "attention") attention();
    if (how == "weights") weights(argv[2]);
    if (how == "fork" && fork() == 0) adds(5, 10), _exit(0);
    adds(2, 1);
    if (how == "fork") wait(nullptr);
    if (how == "crash") std::raise(SIGSEGV);
    if (how == "inside") add(nullptr, nullptr, nullptr);
    if (how == "hang") sleep(600);
    if (how == "fail") return 3;
    if (how == "threads") {
        std::vector<std::thread> threads;
        for (int i = 0; i < 4; ++i) threads.emplace_back(adds, 20, 100.0f * float(i + 1));
        for (auto& thread : threads) thread.join();
    }
    std::printf("well\n");
}
