// The device in use: its handle, its stream, and scratch memory for the ops.
#pragma once

#include <infiniop/handle.h>
#include <infinirt.h>

#include <string>

#include "tensor.h"

namespace engine {

// Throws std::runtime_error, naming the call, when the status is not success.
void check(infiniStatus_t status, const std::string& call);

class Device {
  public:
    Device(const std::string& name, int id);  // "cpu", "nvidia", "ascend", ...
    ~Device();
    Device(const Device&) = delete;
    Device& operator=(const Device&) = delete;

    infiniopHandle_t handle() const { return handle_; }
    infinirtStream_t stream() const { return stream_; }
    void* workspace(size_t bytes);  // of at least that size, until the next call
    void synchronize() const;

  private:
    infiniopHandle_t handle_ = nullptr;
    infinirtStream_t stream_ = nullptr;
    Tensor workspace_;
};

}  // namespace engine
