// Shared by the two halves of the stand-in: device addresses and faults on demand.
#pragma once

#include <infinicore.h>

#include <cstdlib>
#include <cstring>
#include <string>

// Not an address that x86-64 or AArch64 user space can have.
constexpr uintptr_t FAKE_SHIFT = uintptr_t{1} << 60;

inline char* real(const void* device) {
    auto address = reinterpret_cast<uintptr_t>(device);
    if (address < FAKE_SHIFT) std::abort();  // a host address where a device address belongs
    return reinterpret_cast<char*>(address - FAKE_SHIFT);
}

inline std::string environment(const char* name) {
    const char* value = std::getenv(name);
    return value ? value : "";
}
