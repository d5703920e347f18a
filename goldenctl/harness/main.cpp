// goldenctl-harness: executes a plan (docs/plan-protocol.md) on InfiniCore.

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <optional>

#include "errors.h"
#include "json.h"
#include "ops.h"
#include "plan.h"
#include "run.h"

namespace goldenctl {
namespace {

constexpr int kExitStopped = 1, kExitUsage = 2, kExitDevice = 3, kExitPlan = 4;
constexpr const char* kProgram = "goldenctl-harness " GOLDENCTL_VERSION;
constexpr const char* kUsage =
    "usage: goldenctl-harness PLAN.json [--skip N] [--only N]\n"
    "       goldenctl-harness --devices\n"
    "Executes a plan and prints one JSON event per line.\n";

struct Options {
    std::string plan;
    bool devices = false;
    std::optional<size_t> skip, only;
};

bool parse_options(int argc, char** argv, Options& options) {
    for (int i = 1; i < argc; ++i) {
        std::string_view argument = argv[i];
        if (argument == "--devices") {
            options.devices = true;
        } else if ((argument == "--skip" || argument == "--only") && ++i < argc) {
            std::string_view text = argv[i];
            size_t& index = (argument == "--skip" ? options.skip : options.only).emplace();
            auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), index);
            if (error != std::errc() || stop != text.data() + text.size()) return false;
        } else if (options.plan.empty() && !argument.empty() && argument[0] != '-') {
            options.plan = argument;
        } else {
            return false;
        }
    }
    return options.devices == options.plan.empty();
}

std::string list(const std::vector<std::string>& names) {
    std::string joined;
    for (const std::string& name : names) joined += (joined.empty() ? "" : ", ") + quote(name);
    return "[" + joined + "]";
}

// {"cpu": {"float32": [...], ...}} of the first device of one type.
std::string quirks_by_dtype(const std::string& device) {
    Engine engine(device, 0);
    std::string joined;
    for (Dtype dtype : {Dtype::Float32, Dtype::Bfloat16, Dtype::Float16})
        joined += (joined.empty() ? "" : ", ") + quote(dtype_name(dtype)) + ": " +
                  list(probe_quirks(engine, dtype));
    return quote(device) + ": {" + joined + "}";
}

int print_devices() {
    std::string counts, quirks;
    infinirtInit();
    for (auto [name, type] : device_types()) {
        int count = device_count(type);
        counts += (counts.empty() ? "" : ", ") + quote(name) + ": " + std::to_string(count);
        if (count > 0) quirks += (quirks.empty() ? "" : ", ") + quirks_by_dtype(name);
    }
    emit(std::string("{\"program\": ") + quote(kProgram) + ", \"counts\": {" + counts +
         "}, \"quirks\": {" + quirks +
         "}, \"rope\": " + (engine_has_rope_algo() ? "[\"neox\", \"gptj\"]" : "[\"gptj\"]") +
         ", \"mul\": " + (engine_has_mul() ? "true" : "false") + "}");
    return 0;
}

int run_plan(const Options& options) {
    Plan plan = read_plan(options.plan);
    size_t count = plan.sublayers.size(), first = options.only.value_or(options.skip.value_or(0));
    size_t last = options.only ? first + 1 : count;
    if (first > count || last > count)
        throw PlanError("there is no sublayer " + std::to_string(first) + " among " +
                        std::to_string(count));
    Engine engine(plan.device, plan.device_id);
    std::vector<std::string> quirks = probe_quirks(engine, plan.dtype);
    emit(std::string("{\"event\": \"ready\", \"protocol\": 1, \"program\": ") + quote(kProgram) +
         ", \"device\": " + quote(plan.device + ":" + std::to_string(plan.device_id)) +
         ", \"quirks\": " + list(quirks) + "}");
    bool gemm_reads_output = std::count(quirks.begin(), quirks.end(), "gemm_reads_output") > 0;
    for (size_t index = first; index < last; ++index)
        if (!run_sublayer(engine, plan, index, gemm_reads_output) && plan.stop_on_failure)
            return kExitStopped;
    emit("{\"event\": \"finished\"}");
    return 0;
}

int report(const char* reason, const char* message, int status) {
    emit(std::string("{\"event\": \"failed\", \"reason\": ") + quote(reason) +
         ", \"message\": " + quote(message) + "}");
    std::fprintf(stderr, "goldenctl-harness: %s\n", quote(message).c_str());
    return status;
}

}  // namespace
}  // namespace goldenctl

int main(int argc, char** argv) {
    using namespace goldenctl;
    Options options;
    if (!parse_options(argc, argv, options)) {
        std::fputs(kUsage, stderr);
        return kExitUsage;
    }
    try {
        return options.devices ? print_devices() : run_plan(options);
    } catch (const PlanError& error) {
        return report("plan", error.what(), kExitPlan);
    } catch (const std::exception& error) {
        return report("device", error.what(), kExitDevice);
    }
}
