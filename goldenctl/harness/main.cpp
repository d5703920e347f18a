// goldenctl-harness: executes a plan (docs/plan-protocol.md) on InfiniCore.

#include <cstdio>
#include <cstdlib>
#include <iterator>

#include "errors.h"
#include "json.h"
#include "run.h"

namespace goldenctl {
namespace {

constexpr int kExitStopped = 1, kExitUsage = 2, kExitDevice = 3, kExitPlan = 4;
constexpr const char* kProgram = "goldenctl-harness " GOLDENCTL_VERSION;
constexpr const char* kUsage =
    "usage: goldenctl-harness PLAN.json [--skip N] [--only N] [--poison 0|1|2]\n"
    "       goldenctl-harness --devices\n"
    "Executes a plan and prints one JSON event per line.\n";

// Takes `--name N` pairs into `options`, which has a value for each name; false on anything else.
bool parse_options(int argc, char** argv, std::map<std::string, long>& options) {
    for (int i = 2; i < argc; i += 2) {
        auto option = options.find(argv[i]);
        if (option == options.end() || i + 1 == argc) return false;
        char* end = nullptr;
        option->second = std::strtol(argv[i + 1], &end, 10);
        if (end == argv[i + 1] || *end || option->second < 0) return false;
    }
    return options.at("--poison") < static_cast<long>(std::size(kPoisons));
}

int print_devices() {
    std::vector<Member> counts, quirks;
    infinirtInit();
    for (auto [name, type] : device_types()) {
        counts.emplace_back(name, say(device_count(type)));
        if (device_count(type) == 0) continue;
        use_device(name, 0);
        std::vector<Member> by_dtype;
        for (Dtype dtype : {Dtype::Float32, Dtype::Bfloat16, Dtype::Float16})
            by_dtype.emplace_back(dtype_name(dtype), list(probe_quirks(dtype)));
        quirks.emplace_back(name, object(by_dtype));
    }
    emit({{"program", quote(kProgram)},
          {"counts", object(counts)},
          {"quirks", object(quirks)},
          {"rope", engine_has_rope_algo() ? R"(["neox", "gptj"])" : R"(["gptj"])"}});
    return 0;
}

std::string content_of(const std::string& path) {
    File file(path, false);
    std::string content(static_cast<size_t>(file.bytes()), '\0');
    file.read(content.data(), content.size(), 0);
    return content;
}

int run_plan(const char* path, long skip, long only, long poison) {
    Plan plan = parse_plan(content_of(path), kOpKinds);
    std::deque<File> files;  // a File never moves
    for (const PlanFile& file : plan.files) {
        files.emplace_back(decode_path(file.path), file.write);
        if (files.back().bytes() != file.bytes)
            throw PlanError(say(quote(file.path), ": expected ", file.bytes, " bytes, got ",
                                files.back().bytes()));
    }
    size_t count = plan.sublayers.size(), first = static_cast<size_t>(only < 0 ? skip : only);
    size_t last = only < 0 ? count : first + 1;
    if (first > count || last > count)
        throw PlanError(say("there is no sublayer ", first, " among ", count));
    use_device(plan.device, plan.device_id);
    emit({{"event", quote("ready")},
          {"protocol", "1"},
          {"program", quote(kProgram)},
          {"device", quote(say(plan.device, ":", plan.device_id))},
          {"quirks", list(probe_quirks(plan.dtype))}});
    for (size_t index = first; index < last; ++index)
        if (!run_sublayer(plan, files, index, static_cast<size_t>(poison)) && plan.stop_on_failure)
            return kExitStopped;
    emit({{"event", quote("finished")}});
    return 0;
}

int report(const char* reason, const char* message, int status) {
    emit({{"event", quote("failed")}, {"reason", quote(reason)}, {"message", quote(message)}});
    std::fprintf(stderr, "goldenctl-harness: %s\n", quote(message).c_str());
    return status;
}

}  // namespace
}  // namespace goldenctl

int main(int argc, char** argv) {
    using namespace goldenctl;
    std::map<std::string, long> options{{"--skip", 0}, {"--only", -1}, {"--poison", 0}};
    std::string plan = argc > 1 ? argv[1] : "";
    bool devices = plan == "--devices" && argc == 2;
    if (!devices && (plan.empty() || plan[0] == '-' || !parse_options(argc, argv, options))) {
        std::fputs(kUsage, stderr);
        return kExitUsage;
    }
    try {
        if (devices) return print_devices();
        return run_plan(argv[1], options["--skip"], options["--only"], options["--poison"]);
    } catch (const PlanError& error) {
        return report("plan", error.what(), kExitPlan);
    } catch (const std::exception& error) {
        return report("device", error.what(), kExitDevice);
    }
}
