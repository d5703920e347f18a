#include "engine.h"

#include <algorithm>
#include <map>

#include "errors.h"
#include "json.h"

namespace goldenctl {
namespace {

infiniopHandle_t handle_in_use = nullptr;

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
    const char* name = found == names.end() ? "an unknown status" : found->second;
    return say(call, " returned ", name, " (", static_cast<int>(status), ")");
}
#undef NAMED

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

void use_device(const std::string& device, int device_id) {
    auto require = [](infiniStatus_t status, const char* call) {
        if (status != INFINI_STATUS_SUCCESS) throw DeviceError(message(status, call));
    };
    std::string known;
    for (const auto& [name, type] : device_types()) {
        known += say(known.empty() ? "" : ", ", name);
        if (device != name) continue;
        require(infinirtInit(), "infinirtInit");
        if (int count = device_count(type); device_id >= count)
            throw DeviceError(say("there is no device ", device, ":", device_id,
                                  "; the engine sees ", count, " of type ", device));
        require(infinirtSetDevice(type, device_id), "infinirtSetDevice");
        if (handle_in_use) infiniopDestroyHandle(handle_in_use);
        return require(infiniopCreateHandle(&handle_in_use), "infiniopCreateHandle");
    }
    throw DeviceError("unknown device " + quote(device) + "; there are " + known);
}

infiniopHandle_t device_handle() { return handle_in_use; }

void check(infiniStatus_t status, const std::string& call) {
    if (status == INFINI_STATUS_SUCCESS) return;
    bool lacking = status == INFINI_STATUS_NOT_IMPLEMENTED ||
                   status == INFINI_STATUS_DEVICE_TYPE_NOT_SUPPORTED ||
                   status == INFINI_STATUS_DEVICE_ARCHITECTURE_NOT_SUPPORTED;
    throw SublayerError(lacking ? "unsupported" : "status", message(status, call));
}

void copy_in(void* device, const void* host, size_t bytes) {
    check(infinirtMemcpy(device, host, bytes, INFINIRT_MEMCPY_H2D), "infinirtMemcpy to the device");
}

void copy_out(void* host, const void* device, size_t bytes) {
    check(infinirtMemcpy(host, device, bytes, INFINIRT_MEMCPY_D2H), "infinirtMemcpy to the host");
}

void copy_device(void* target, const void* source, size_t bytes) {
    check(infinirtMemcpy(target, source, bytes, INFINIRT_MEMCPY_D2D),
          "infinirtMemcpy on the device");
}

Buffer::Buffer(size_t bytes) : bytes_(bytes), memory_(nullptr, infinirtFree) {
    void* data = nullptr;
    size_t whole = bytes + 2 * kGuardBytes;
    auto status = infinirtMalloc(&data, whole);
    if (status != INFINI_STATUS_SUCCESS || !data)
        throw SublayerError("memory", message(status, say("infinirtMalloc of ", whole, " bytes")));
    memory_.reset(static_cast<char*>(data));
    std::vector<uint16_t> guard(kGuardBytes / 2, kPoisons[0]);
    copy_in(data, guard.data(), kGuardBytes);
    copy_in(this->data() + bytes, guard.data(), kGuardBytes);
}

void Buffer::poison(uint16_t value) const {
    constexpr size_t most = size_t{1} << 20;
    std::vector<uint16_t> chunk(std::min(most, bytes_) / 2 + 1, value);
    for (size_t at = 0; at < bytes_; at += most)
        copy_in(data() + at, chunk.data(), std::min(most, bytes_ - at));
}

bool Buffer::guards_intact() const {
    std::vector<uint16_t> expected(kGuardBytes / 2, kPoisons[0]), found(expected);
    for (const char* guard : {memory_.get(), data() + bytes_}) {
        copy_out(found.data(), guard, kGuardBytes);
        if (found != expected) return false;
    }
    return true;
}

}  // namespace goldenctl
