#include "device.h"

#include <array>
#include <utility>

#include "errors.h"
#include "json.h"

namespace goldenctl {
namespace {

const char* status_name(infiniStatus_t status) {
    switch (status) {
        case INFINI_STATUS_SUCCESS:
            return "INFINI_STATUS_SUCCESS";
        case INFINI_STATUS_INTERNAL_ERROR:
            return "INFINI_STATUS_INTERNAL_ERROR";
        case INFINI_STATUS_NOT_IMPLEMENTED:
            return "INFINI_STATUS_NOT_IMPLEMENTED";
        case INFINI_STATUS_BAD_PARAM:
            return "INFINI_STATUS_BAD_PARAM";
        case INFINI_STATUS_NULL_POINTER:
            return "INFINI_STATUS_NULL_POINTER";
        case INFINI_STATUS_DEVICE_TYPE_NOT_SUPPORTED:
            return "INFINI_STATUS_DEVICE_TYPE_NOT_SUPPORTED";
        case INFINI_STATUS_DEVICE_NOT_FOUND:
            return "INFINI_STATUS_DEVICE_NOT_FOUND";
        case INFINI_STATUS_DEVICE_NOT_INITIALIZED:
            return "INFINI_STATUS_DEVICE_NOT_INITIALIZED";
        case INFINI_STATUS_DEVICE_ARCHITECTURE_NOT_SUPPORTED:
            return "INFINI_STATUS_DEVICE_ARCHITECTURE_NOT_SUPPORTED";
        case INFINI_STATUS_BAD_TENSOR_DTYPE:
            return "INFINI_STATUS_BAD_TENSOR_DTYPE";
        case INFINI_STATUS_BAD_TENSOR_SHAPE:
            return "INFINI_STATUS_BAD_TENSOR_SHAPE";
        case INFINI_STATUS_BAD_TENSOR_STRIDES:
            return "INFINI_STATUS_BAD_TENSOR_STRIDES";
        case INFINI_STATUS_INSUFFICIENT_WORKSPACE:
            return "INFINI_STATUS_INSUFFICIENT_WORKSPACE";
        default:
            return "an unknown status";
    }
}

std::string message(infiniStatus_t status, const char* call) {
    return std::string(call) + " returned " + status_name(status) + " (" +
           std::to_string(static_cast<int>(status)) + ")";
}

}  // namespace

const std::vector<DeviceType>& device_types() {
    static const std::vector<DeviceType> types{
        {"cpu", INFINI_DEVICE_CPU},
        {"nvidia", INFINI_DEVICE_NVIDIA},
        {"cambricon", INFINI_DEVICE_CAMBRICON},
        {"ascend", INFINI_DEVICE_ASCEND},
        {"metax", INFINI_DEVICE_METAX},
        {"moore", INFINI_DEVICE_MOORE},
        {"iluvatar", INFINI_DEVICE_ILUVATAR},
        {"kunlun", INFINI_DEVICE_KUNLUN},
#if defined(GOLDENCTL_HAS_HYGON)
        {"hygon", INFINI_DEVICE_HYGON},
#elif defined(GOLDENCTL_HAS_SUGON)
        {"hygon", INFINI_DEVICE_SUGON},  // its name in older headers
#endif
#if defined(GOLDENCTL_HAS_QY)
        {"qy", INFINI_DEVICE_QY},
#endif
#if defined(GOLDENCTL_HAS_ALI)
        {"ali", INFINI_DEVICE_ALI},
#endif
    };
    return types;
}

int device_count(infiniDevice_t type) {
    int count = 0;
    return infinirtGetDeviceCount(type, &count) == INFINI_STATUS_SUCCESS && count > 0 ? count : 0;
}

infiniDtype_t engine_dtype(Dtype dtype) {
    static constexpr std::array<infiniDtype_t, 6> types{INFINI_DTYPE_F16, INFINI_DTYPE_BF16,
                                                        INFINI_DTYPE_F32, INFINI_DTYPE_F64,
                                                        INFINI_DTYPE_I32, INFINI_DTYPE_I64};
    return types[static_cast<size_t>(dtype)];
}

void check(infiniStatus_t status, const char* call) {
    if (status == INFINI_STATUS_SUCCESS) return;
    bool lacking = status == INFINI_STATUS_NOT_IMPLEMENTED ||
                   status == INFINI_STATUS_DEVICE_TYPE_NOT_SUPPORTED ||
                   status == INFINI_STATUS_DEVICE_ARCHITECTURE_NOT_SUPPORTED;
    throw SublayerError(lacking ? "unsupported" : "status", message(status, call));
}

Engine::Engine(const std::string& device, int device_id) {
    const DeviceType* found = nullptr;
    std::string known;
    for (const DeviceType& type : device_types()) {
        if (device == type.name) found = &type;
        known += (known.empty() ? "" : ", ") + std::string(type.name);
    }
    if (!found) throw DeviceError("unknown device " + quote(device) + "; there are " + known);
    if (auto status = infinirtInit(); status != INFINI_STATUS_SUCCESS)
        throw DeviceError(message(status, "infinirtInit"));
    int count = device_count(found->type);
    if (device_id >= count)
        throw DeviceError("there is no device " + device + ":" + std::to_string(device_id) +
                          "; the engine sees " + std::to_string(count) + " of type " + device);
    if (auto status = infinirtSetDevice(found->type, device_id); status != INFINI_STATUS_SUCCESS)
        throw DeviceError(message(status, "infinirtSetDevice"));
    if (auto status = infiniopCreateHandle(&handle_); status != INFINI_STATUS_SUCCESS)
        throw DeviceError(message(status, "infiniopCreateHandle"));
}

Engine::~Engine() { infiniopDestroyHandle(handle_); }

void Engine::copy_in(void* device, const void* host, size_t bytes) const {
    check(infinirtMemcpy(device, host, bytes, INFINIRT_MEMCPY_H2D), "infinirtMemcpy to the device");
}

void Engine::copy_out(void* host, const void* device, size_t bytes) const {
    check(infinirtMemcpy(host, device, bytes, INFINIRT_MEMCPY_D2H),
          "infinirtMemcpy from the device");
}

void Engine::copy_device(void* target, const void* source, size_t bytes) const {
    check(infinirtMemcpy(target, source, bytes, INFINIRT_MEMCPY_D2D),
          "infinirtMemcpy on the device");
}

void Engine::synchronize() const {
    check(infinirtDeviceSynchronize(), "infinirtDeviceSynchronize");
}

DeviceMemory::DeviceMemory(size_t bytes) {
    auto status = infinirtMalloc(&data_, bytes);
    if (status != INFINI_STATUS_SUCCESS || !data_)
        throw SublayerError("memory", "infinirtMalloc of " + std::to_string(bytes) +
                                          " bytes failed: " + status_name(status));
}

DeviceMemory::~DeviceMemory() {
    if (data_) infinirtFree(data_);
}

DeviceMemory::DeviceMemory(DeviceMemory&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)) {}

EngineTensor describe(const View& view, Dtype dtype, size_t rank) {
    size_t first = view.shape.size() - rank;
    std::vector<size_t> shape(view.shape.begin() + static_cast<ptrdiff_t>(first), view.shape.end());
    std::vector<ptrdiff_t> strides(view.strides.begin() + static_cast<ptrdiff_t>(first),
                                   view.strides.end());
    infiniopTensorDescriptor_t descriptor = nullptr;
    check(infiniopCreateTensorDescriptor(&descriptor, rank, shape.data(), strides.data(),
                                         engine_dtype(dtype)),
          "infiniopCreateTensorDescriptor");
    return EngineTensor(descriptor, infiniopDestroyTensorDescriptor);
}

}  // namespace goldenctl
