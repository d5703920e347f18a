#include "device.h"

#include <stdexcept>
#include <utility>

namespace engine {
namespace {

constexpr std::pair<const char*, infiniDevice_t> kDevices[] = {
    {"cpu", INFINI_DEVICE_CPU},
    {"nvidia", INFINI_DEVICE_NVIDIA},
    {"cambricon", INFINI_DEVICE_CAMBRICON},
    {"ascend", INFINI_DEVICE_ASCEND},
    {"metax", INFINI_DEVICE_METAX},
    {"moore", INFINI_DEVICE_MOORE},
    {"iluvatar", INFINI_DEVICE_ILUVATAR},
    {"kunlun", INFINI_DEVICE_KUNLUN},
};

infiniDevice_t device_named(const std::string& name) {
    for (const auto& [known, type] : kDevices)
        if (name == known) return type;
    throw std::runtime_error("unknown device " + name);
}

}  // namespace

void check(infiniStatus_t status, const std::string& call) {
    if (status != INFINI_STATUS_SUCCESS)
        throw std::runtime_error(call + " failed with status " + std::to_string(status));
}

Device::Device(const std::string& name, int id) {
    infiniDevice_t type = device_named(name);
    check(infinirtInit(), "infinirtInit");
    check(infinirtSetDevice(type, id), "infinirtSetDevice to " + name + ":" + std::to_string(id));
    check(infinirtStreamCreate(&stream_), "infinirtStreamCreate");
    check(infiniopCreateHandle(&handle_), "infiniopCreateHandle");
}

Device::~Device() {
    infiniopDestroyHandle(handle_);
    infinirtStreamDestroy(stream_);
}

void* Device::workspace(size_t bytes) {
    if (bytes == 0) return nullptr;
    if (!workspace_ || workspace_.elements() * dtype_bytes(workspace_.dtype) < bytes) {
        synchronize();  // an op may still use the old one
        workspace_ = Tensor(INFINI_DTYPE_F32, {bytes / sizeof(float) + 1});
    }
    return workspace_.data();
}

void Device::synchronize() const {
    check(infinirtStreamSynchronize(stream_), "infinirtStreamSynchronize");
}

}  // namespace engine
