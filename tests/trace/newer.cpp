// Calls each operator of the newer stand-in once, on tensors of [2, 3].
#include <infiniop/handle.h>
#include <infiniop/ops/addrmsnorm.h>
#include <infiniop/ops/extra.h>
#include <infiniop/ops/pad.h>
#include <infiniop/ops/pagedcaching.h>
#include <infiniop/ops/topksoftmax.h>
#include <infiniop/ops/twist.h>
#include <infinirt.h>

int main() {
    infiniopHandle_t handle;
    infinirtInit();
    infiniopCreateHandle(&handle);
    size_t shape[] = {2, 3};
    infiniopTensorDescriptor_t t, index;
    infiniopCreateTensorDescriptor(&t, 2, shape, nullptr, INFINI_DTYPE_F32);
    infiniopCreateTensorDescriptor(&index, 1, shape, nullptr, INFINI_DTYPE_I64);
    float a[6] = {1, 2, 3, 4, 5, 6}, b[6] = {}, c[6] = {}, d[6] = {};
    long slots[2] = {4, 5};

    infiniopAddRMSNormDescriptor_t norm;
    infiniopCreateAddRMSNormDescriptor(handle, &norm, t, t, t, t, t, 1e-6f);
    infiniopAddRMSNorm(norm, nullptr, 0, c, d, a, b, b, nullptr);
    infiniopPagedCachingDescriptor_t caching;
    infiniopCreatePagedCachingDescriptor(handle, &caching, t, t, t, t, index);
    infiniopPagedCaching(caching, nullptr, 0, b, d, a, a, slots, nullptr);
    infiniopTwistDescriptor_t twist;
    infiniopCreateTwistDescriptor(handle, &twist, t, t, INFINIOP_TWIST_HALVES);
    infiniopTwist(twist, nullptr, 0, a, a, nullptr);
    infiniopTopksoftmaxDescriptor_t top;
    infiniopCreateTopksoftmaxDescriptor(handle, &top, t);
    int places[4] = {0, 1, 2, 0};
    infiniopTopksoftmax(top, nullptr, 0, c, places, a, 2, 1, nullptr);
    infiniopPadDescriptor_t pad;
    infiniopCreatePadDescriptor(handle, &pad, t, t, slots, "reflect", 0.5);
    infiniopPad(pad, nullptr, 0, c, a, nullptr);
    infiniopSetSpeed(handle, 2.0f);
    infiniopSetSpeed(handle, 3.0f);
}
