#include "device.h"

#include <array>
#include <map>

#include "errors.h"
#include "json.h"

namespace goldenctl {
namespace {

#define NAMED(status) {status, #status}
std::string message(infiniStatus_t status, const std::string& call) {
    static const std::map<int, const char*> names{
        NAMED(INFINI_STATUS_INTERNAL_ERROR),
        NAMED(INFINI_STATUS_NOT_IMPLEMENTED),
        NAMED(INFINI_STATUS_BAD_PARAM),
        NAMED(INFINI_STATUS_NULL_POINTER),
        NAMED(INFINI_STATUS_DEVICE_TYPE_NOT_SUPPORTED),
        NAMED(INFINI_STATUS_DEVICE_NOT_FOUND),
        NAMED(INFINI_STATUS_DEVICE_NOT_INITIALIZED),
        NAMED(INFINI_STATUS_DEVICE_ARCHITECTURE_NOT_SUPPORTED),
        NAMED(INFINI_STATUS_BAD_TENSOR_DTYPE),
        NAMED(INFINI_STATUS_BAD_TENSOR_SHAPE),
        NAMED(INFINI_STATUS_BAD_TENSOR_STRIDES),
        NAMED(INFINI_STATUS_INSUFFICIENT_WORKSPACE)};
    auto found = names.find(status);
    return call + " returned " + (found == names.end() ? "an unknown status" : found->second) +
           " (" + std::to_string(static_cast<int>(status)) + ")";
}
#undef NAMED

void require(infiniStatus_t status, const char* call) {
    if (status != INFINI_STATUS_SUCCESS) throw DeviceError(message(status, call));
}

}  // namespace

const std::vector<std::pair<const char*, infiniDevice_t>>& device_types() {
    static const std::vector<std::pair<const char*, infiniDevice_t>> types{
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

void check(infiniStatus_t status, const std::string& call) {
    if (status == INFINI_STATUS_SUCCESS) return;
    bool lacking = status == INFINI_STATUS_NOT_IMPLEMENTED ||
                   status == INFINI_STATUS_DEVICE_TYPE_NOT_SUPPORTED ||
                   status == INFINI_STATUS_DEVICE_ARCHITECTURE_NOT_SUPPORTED;
    throw SublayerError(lacking ? "unsupported" : "status", message(status, call));
}

Engine::Engine(const std::string& device, int device_id) {
    const infiniDevice_t* found = nullptr;
    std::string known;
    for (const auto& [name, type] : device_types()) {
        if (device == name) found = &type;
        known += (known.empty() ? "" : ", ") + std::string(name);
    }
    if (!found) throw DeviceError("unknown device " + quote(device) + "; there are " + known);
    require(infinirtInit(), "infinirtInit");
    int count = device_count(*found);
    if (device_id >= count)
        throw DeviceError("there is no device " + device + ":" + std::to_string(device_id) +
                          "; the engine sees " + std::to_string(count) + " of type " + device);
    require(infinirtSetDevice(*found, device_id), "infinirtSetDevice");
    require(infiniopCreateHandle(&handle_), "infiniopCreateHandle");
}

Engine::~Engine() { infiniopDestroyHandle(handle_); }

void Engine::copy_in(void* device, const void* host, size_t bytes) const {
    check(infinirtMemcpy(device, host, bytes, INFINIRT_MEMCPY_H2D), "infinirtMemcpy to the device");
}

void Engine::copy_out(void* host, const void* device, size_t bytes) const {
    check(infinirtMemcpy(host, device, bytes, INFINIRT_MEMCPY_D2H), "infinirtMemcpy to the host");
}

void Engine::copy_device(void* target, const void* source, size_t bytes) const {
    check(infinirtMemcpy(target, source, bytes, INFINIRT_MEMCPY_D2D),
          "infinirtMemcpy on the device");
}

void Engine::synchronize() const {
    check(infinirtDeviceSynchronize(), "infinirtDeviceSynchronize");
}

DeviceMemory allocate(size_t bytes) {
    void* data = nullptr;
    auto status = infinirtMalloc(&data, bytes);
    if (status == INFINI_STATUS_SUCCESS && data) return DeviceMemory(static_cast<char*>(data));
    throw SublayerError("memory",
                        message(status, "infinirtMalloc of " + std::to_string(bytes) + " bytes"));
}

EngineTensor describe(const View& view, Dtype dtype, size_t rank) {
    static constexpr std::array<infiniDtype_t, 6> types{INFINI_DTYPE_F16, INFINI_DTYPE_BF16,
                                                        INFINI_DTYPE_F32, INFINI_DTYPE_F64,
                                                        INFINI_DTYPE_I32, INFINI_DTYPE_I64};
    auto last = static_cast<ptrdiff_t>(rank);
    std::vector<size_t> shape(view.shape.end() - last, view.shape.end());
    std::vector<ptrdiff_t> strides(view.strides.end() - last, view.strides.end());
    infiniopTensorDescriptor_t descriptor = nullptr;
    check(infiniopCreateTensorDescriptor(&descriptor, rank, shape.data(), strides.data(),
                                         types[static_cast<size_t>(dtype)]),
          "infiniopCreateTensorDescriptor");
    return EngineTensor(descriptor, infiniopDestroyTensorDescriptor);
}

}  // namespace goldenctl
