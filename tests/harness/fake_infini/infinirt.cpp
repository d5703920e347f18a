// The runtime half: memory that only infinirtMemcpy reaches.
#include <infinirt.h>

#include "fake.h"

infiniStatus_t infinirtInit() { return INFINI_STATUS_SUCCESS; }

infiniStatus_t infinirtGetDeviceCount(infiniDevice_t device, int* count) {
    if (device == INFINI_DEVICE_MOORE) return INFINI_STATUS_DEVICE_TYPE_NOT_SUPPORTED;
    *count = device == INFINI_DEVICE_CPU ? 1 : 0;
    if (device == INFINI_DEVICE_NVIDIA) *count = std::atoi(environment("FAKE_DEVICES").c_str());
    return INFINI_STATUS_SUCCESS;
}

infiniStatus_t infinirtSetDevice(infiniDevice_t, int) { return INFINI_STATUS_SUCCESS; }
infiniStatus_t infinirtDeviceSynchronize() { return INFINI_STATUS_SUCCESS; }

infiniStatus_t infinirtMalloc(void** memory, size_t bytes) {
    if (environment("FAKE_FAULT") == "memory" && bytes > 4096) return INFINI_STATUS_INTERNAL_ERROR;
    *memory = reinterpret_cast<void*>(reinterpret_cast<uintptr_t>(std::malloc(bytes)) + FAKE_SHIFT);
    return INFINI_STATUS_SUCCESS;
}

infiniStatus_t infinirtFree(void* memory) {
    std::free(real(memory));
    return INFINI_STATUS_SUCCESS;
}

infiniStatus_t infinirtMemcpy(void* to, const void* from, size_t bytes, infinirtMemcpyKind_t kind) {
    bool to_device = kind == INFINIRT_MEMCPY_H2D || kind == INFINIRT_MEMCPY_D2D;
    bool from_device = kind == INFINIRT_MEMCPY_D2H || kind == INFINIRT_MEMCPY_D2D;
    std::memmove(to_device ? real(to) : to, from_device ? real(from) : from, bytes);
    return INFINI_STATUS_SUCCESS;
}
