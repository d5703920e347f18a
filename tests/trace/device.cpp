// Multiplies strided views of a device's memory, which holds 0, 1, 2...
#include <infiniop/handle.h>
#include <infiniop/ops/swiglu.h>
#include <infinirt.h>

#include <numeric>
#include <vector>

int main() {
    constexpr size_t count = 20000;
    std::vector<float> host(count);
    std::iota(host.begin(), host.end(), 0.0f);
    void* memory;
    infinirtMalloc(&memory, count * sizeof(float));
    infinirtMemcpy(memory, host.data(), count * sizeof(float),
                   static_cast<infinirtMemcpyKind_t>(1));

    infiniopHandle_t handle;
    infiniopCreateHandle(&handle);
    size_t shape[] = {3, 2, 4};
    ptrdiff_t near[] = {8, 4, 1}, transposed[] = {4, 12, 1}, sparse[] = {5000, 64, 2};
    infiniopTensorDescriptor_t y, a, b;
    infiniopCreateTensorDescriptor(&y, 3, shape, near, INFINI_DTYPE_F32);
    infiniopCreateTensorDescriptor(&a, 3, shape, transposed, INFINI_DTYPE_F32);
    infiniopCreateTensorDescriptor(&b, 3, shape, sparse, INFINI_DTYPE_F32);
    infiniopSwiGLUDescriptor_t op;
    infiniopCreateSwiGLUDescriptor(handle, &op, y, a, b);
    auto floats = reinterpret_cast<size_t>(memory);
    auto at = [&](size_t index) { return reinterpret_cast<void*>(floats + index * sizeof(float)); };
    infiniopSwiGLU(op, nullptr, 0, at(100), at(0), at(1000), nullptr);
    infinirtFree(memory);
}
