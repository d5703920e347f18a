// The ways in which the harness fails; each is a `reason` of the protocol.
#pragma once

#include <sstream>
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
    SublayerError(const char* reason_, const std::string& message)
        : std::runtime_error(message), reason(reason_) {}
    const char* reason;  // status, unwritten, overrun, unsupported, io, memory or bad_input
};

// Joins texts and numbers.
template <typename... Parts>
std::string say(const Parts&... parts) {
    std::ostringstream text;
    (text << ... << parts);
    return text.str();
}

}  // namespace goldenctl
