// Owns what each op of the protocol means to InfiniCore: its descriptors and its launch.
#pragma once

#include <functional>
#include <vector>

#include "device.h"
#include "plan.h"

namespace goldenctl {

// Enqueues one execution; owns every descriptor and workspace that it needs.
using Launch = std::function<void()>;

// Device addresses of the first element of each tensor of a sublayer.
using Addresses = std::vector<char*>;

// Prepares an op whose views point into `addresses`, outside of the time that is measured; reads
// ids and positions on the host to check them. Throws SublayerError: `status`, `unsupported` or
// `bad_input`.
Launch prepare(const Engine& engine, const Op& op, const Addresses& addresses,
               const std::vector<Tensor>& tensors);

bool engine_has_mul();
bool engine_has_rope_algo();

}  // namespace goldenctl
