// engine MODEL --tokens 1,2,3 [--decode N] ...: prefill, then greedy decode.
#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <map>
#include <numeric>
#include <sstream>
#include <stdexcept>

#include "mistakes.h"
#include "model.h"

namespace engine {
namespace {

constexpr const char* kUsage =
    "usage: engine MODEL --tokens 1,2,3 [--decode N] [--dtype fp32|bf16|fp16]\n"
    "              [--chunk N] [--force 5,7] [--device cpu] [--device-id 0] [-v]\n"
    "Prints the token that follows the prompt, and one more for each of N decode steps.\n"
    "--chunk N  prefill N tokens at a time\n"
    "--force    the tokens that the first decode steps are given, whatever was computed\n"
    "-v         the five highest logits of each step, on stderr\n";

struct UsageError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

using Tokens = std::vector<int32_t>;

struct Options {
    std::string model;
    std::map<std::string, std::string> values = {
        {"--tokens", ""}, {"--decode", "0"},   {"--dtype", ""},     {"--chunk", "0"},
        {"--force", ""},  {"--device", "cpu"}, {"--device-id", "0"}};
    bool verbose = false;

    const std::string& operator[](const char* name) const { return values.at(name); }
    size_t number(const char* name) const;
};

int32_t whole(const std::string& text) {
    char* after = nullptr;
    long value = std::strtol(text.c_str(), &after, 10);
    if (text.empty() || *after || value < 0 || value > 1'000'000'000)
        throw std::runtime_error("'" + text + "' is not a number from 0 on");
    return static_cast<int32_t>(value);
}

size_t Options::number(const char* name) const { return static_cast<size_t>(whole((*this)[name])); }

Tokens tokens_of(const std::string& text) {
    Tokens tokens;
    std::istringstream stream(text);
    for (std::string token; std::getline(stream, token, ',');) tokens.push_back(whole(token));
    return tokens;
}

Options parse(int argc, char** argv) {
    Options options;
    if (kBuiltIn == Mistake::any) options.values["--mistake"] = "none";
    for (int n = 1; n < argc; ++n) {
        std::string word = argv[n];
        auto option = options.values.find(word);
        if (word == "-v")
            options.verbose = true;
        else if (option != options.values.end() && n + 1 < argc)
            option->second = argv[++n];
        else if (word[0] != '-' && options.model.empty())
            options.model = word;
        else
            throw UsageError("unexpected '" + word + "'\n" + kUsage);
    }
    if (options.model.empty() || options["--tokens"].empty()) throw UsageError(kUsage);
    return options;
}

void choose_mistake(const Options& options) {
    auto name = options.values.find("--mistake");
    if (name == options.values.end() || name->second == "none") return;
    chosen = mistake_named(name->second);
    if (chosen == Mistake::none) throw std::runtime_error("unknown mistake " + name->second);
}

int32_t best(const std::vector<float>& logits, bool verbose) {
    std::vector<size_t> order(logits.size());
    std::iota(order.begin(), order.end(), 0);
    size_t shown = std::min<size_t>(5, order.size());
    std::partial_sort(order.begin(), order.begin() + static_cast<ptrdiff_t>(shown), order.end(),
                      [&](size_t a, size_t b) { return logits[a] > logits[b]; });
    if (verbose) {
        for (size_t n = 0; n < shown; ++n)
            std::cerr << (n ? "  " : "") << order[n] << ": " << logits[order[n]];
        std::cerr << "\n";
    }
    return static_cast<int32_t>(order[0]);
}

Tokens generate(Model& model, const Options& options, const Tokens& prompt, size_t chunk) {
    std::vector<float> logits;
    for (size_t at = 0; at < prompt.size(); at += chunk) {
        auto first = prompt.begin() + static_cast<ptrdiff_t>(at);
        auto count = static_cast<ptrdiff_t>(std::min(chunk, prompt.size() - at));
        logits = model.forward({first, first + count});
    }
    Tokens forced = tokens_of(options["--force"]), found{best(logits, options.verbose)};
    for (size_t step = 0; step < options.number("--decode"); ++step) {
        int32_t next = step < forced.size() ? forced[step] : found.back();
        found.push_back(best(model.forward({next}), options.verbose));
    }
    return found;
}

void run(const Options& options) {
    choose_mistake(options);
    Tokens prompt = tokens_of(options["--tokens"]);
    size_t chunk = options.number("--chunk") ? options.number("--chunk") : prompt.size();
    Config config = read_config(options.model);
    size_t capacity = prompt.size() + options.number("--decode");
    if (capacity > config.max_positions)
        throw std::runtime_error("the model has " + std::to_string(config.max_positions) +
                                 " positions, " + std::to_string(capacity) + " are asked for");
    Device device(options["--device"], whole(options["--device-id"]));
    infiniDtype_t dtype =
        dtype_named(options["--dtype"].empty() ? config.dtype : options["--dtype"]);
    Model model(device, config, Weights(options.model), dtype, capacity,
                std::max<size_t>(chunk, 1));
    Tokens found = generate(model, options, prompt, chunk);
    for (size_t n = 0; n < found.size(); ++n) std::cout << (n ? " " : "") << found[n];
    std::cout << "\n";
}

}  // namespace
}  // namespace engine

int main(int argc, char** argv) {
    try {
        engine::run(engine::parse(argc, argv));
        return 0;
    } catch (const engine::UsageError& error) {
        std::cerr << error.what();
        return 2;
    } catch (const std::exception& error) {
        std::cerr << "engine: " << error.what() << "\n";
        return 1;
    }
}
