// A libFuzzer target: whatever the bytes are, parse_plan returns or throws PlanError.
#include "errors.h"
#include "plan.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    try {
        goldenctl::parse_plan(std::string(reinterpret_cast<const char*>(data), size));
    } catch (const goldenctl::PlanError&) {
    }
    return 0;
}
