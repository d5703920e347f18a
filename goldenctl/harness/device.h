// Owns the engine's runtime, through infinirt: the device, its memory and its status codes.
#pragma once

#include <infiniop/handle.h>
#include <infiniop/tensor_descriptor.h>
#include <infinirt.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "convert.h"
#include "plan.h"

namespace goldenctl {

// Names of the device types that the headers of this build know.
const std::vector<std::pair<const char*, infiniDevice_t>>& device_types();

// Devices of one type that the engine sees; 0 when it was built without them.
int device_count(infiniDevice_t type);

// Throws SublayerError `status`, or `unsupported` when the engine says that it lacks the op.
void check(infiniStatus_t status, const std::string& call);

// The device in use and its operator handle, for as long as the object lives.
class Engine {
  public:
    Engine(const std::string& device, int device_id);  // throws DeviceError
    ~Engine();
    Engine(const Engine&) = delete;
    Engine& operator=(const Engine&) = delete;

    infiniopHandle_t handle() const { return handle_; }

    // Each returns when the bytes have arrived.
    void copy_in(void* device, const void* host, size_t bytes) const;
    void copy_out(void* host, const void* device, size_t bytes) const;
    void copy_device(void* target, const void* source, size_t bytes) const;
    void synchronize() const;

  private:
    infiniopHandle_t handle_ = nullptr;
};

struct DeviceFree {
    void operator()(char* data) const { infinirtFree(data); }
};
using DeviceMemory = std::unique_ptr<char, DeviceFree>;

// Throws SublayerError `memory` when there is none left.
DeviceMemory allocate(size_t bytes);

using EngineTensor = std::shared_ptr<InfiniopTensorDescriptor>;

// The last `rank` dimensions of a view as a tensor descriptor.
EngineTensor describe(const View& view, Dtype dtype, size_t rank);

}  // namespace goldenctl
