// Owns the ways in which the harness fails; each is one `reason` of the protocol.
#pragma once

#include <stdexcept>
#include <string>

namespace goldenctl {

// The plan, or a file that it names, is not valid: nothing was run.
struct PlanError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// The device or the engine cannot be used at all.
struct DeviceError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// One sublayer failed; the next may still run.
struct SublayerError : std::runtime_error {
    SublayerError(std::string reason_, const std::string& message)
        : std::runtime_error(message), reason(std::move(reason_)) {}
    std::string reason;  // status, unwritten, overrun, unsupported, io, memory or bad_input
};

}  // namespace goldenctl
