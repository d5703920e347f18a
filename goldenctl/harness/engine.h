// The engine: the device in use, its memory, and what each op of the protocol means to it.
#pragma once

#include <infiniop/handle.h>
#include <infinirt.h>

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "plan.h"

namespace goldenctl {

// The device types that the headers of this build know, by name.
const std::vector<std::pair<const char*, infiniDevice_t>>& device_types();

// Devices of one type that the engine sees; 0 when it was built without them.
int device_count(infiniDevice_t type);

// Takes a device into use, instead of the one before. Throws DeviceError.
void use_device(const std::string& device, int device_id);
infiniopHandle_t device_handle();  // of the device in use

// Throws SublayerError `status`, or `unsupported` when the engine says that it lacks the op.
void check(infiniStatus_t status, const std::string& call);

// Each returns when the bytes have arrived.
void copy_in(void* device, const void* host, size_t bytes);
void copy_out(void* host, const void* device, size_t bytes);
void copy_device(void* target, const void* source, size_t bytes);

// Values of unwritten memory, repeated every two bytes. The first is a NaN in every float type;
// the others are finite, for engines that multiply old output by beta = 0.
constexpr uint16_t kPoisons[] = {0x7FA5, 0x5AA5, 0x4B5A};

// Device memory between two guards.
class Buffer {
  public:
    explicit Buffer(size_t bytes);  // throws SublayerError `memory`
    char* data() const { return memory_.get() + kGuardBytes; }
    size_t bytes() const { return bytes_; }
    void poison(uint16_t value) const;  // all of it
    bool guards_intact() const;

  private:
    static constexpr size_t kGuardBytes = 256;  // keeps the alignment of the allocation
    size_t bytes_;
    std::unique_ptr<char, infiniStatus_t (*)(void*)> memory_;
};

// An op made ready: its descriptors, and a workspace if it needs one.
struct Launch {
    std::function<void()> run;  // enqueues one execution
    std::shared_ptr<Buffer> workspace;
};

// A view of an op, bound to device memory.
struct Operand {
    View view;
    Dtype dtype;
    char* data;  // of the element at index 0
};

// The ops that plans may hold, and the one of a name that is there.
extern const std::vector<OpKind> kOpKinds;
const OpKind& op_kind(const std::string& name);

// Makes an op over a sublayer's tensors ready; reads ids and positions on the host to check
// them. Throws SublayerError: `status`, `unsupported`, `memory` or `bad_input`.
Launch prepare(const Op& op, const Sublayer& sublayer, const std::vector<Buffer>& buffers);

bool engine_has_rope_algo();

}  // namespace goldenctl
