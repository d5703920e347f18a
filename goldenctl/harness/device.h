// Owns the engine's runtime: the device, its memory and its status codes, through infinirt.
#pragma once

#include <infiniop/handle.h>
#include <infiniop/tensor_descriptor.h>
#include <infinirt.h>

#include <memory>
#include <string>
#include <vector>

#include "convert.h"
#include "plan.h"

namespace goldenctl {

struct DeviceType {
    const char* name;
    infiniDevice_t type;
};

// The device types that the headers of this build can name.
const std::vector<DeviceType>& device_types();

// Devices of one type that the engine sees; 0 when it was built without them.
int device_count(infiniDevice_t type);

infiniDtype_t engine_dtype(Dtype dtype);

// Throws SublayerError `status`, or `unsupported` when the engine says that it lacks the op.
void check(infiniStatus_t status, const char* call);

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

// Device memory that this object frees; throws SublayerError `memory` when there is none left.
class DeviceMemory {
  public:
    explicit DeviceMemory(size_t bytes);
    ~DeviceMemory();
    DeviceMemory(DeviceMemory&& other) noexcept;
    DeviceMemory(const DeviceMemory&) = delete;
    DeviceMemory& operator=(const DeviceMemory&) = delete;

    char* data() const { return static_cast<char*>(data_); }

  private:
    void* data_ = nullptr;
};

using EngineTensor = std::shared_ptr<InfiniopTensorDescriptor>;

// The last `rank` dimensions of a view as a tensor descriptor.
EngineTensor describe(const View& view, Dtype dtype, size_t rank);

}  // namespace goldenctl
