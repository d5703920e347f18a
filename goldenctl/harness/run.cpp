#include "run.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <new>
#include <optional>

#include "errors.h"
#include "json.h"
#include "ops.h"
#include "poison.h"

namespace goldenctl {
namespace {

constexpr int64_t kChunkElements = int64_t{1} << 18;  // staged at once between file and device

int64_t now_ns() {
    auto now = std::chrono::steady_clock::now().time_since_epoch();
    return std::chrono::duration_cast<std::chrono::nanoseconds>(now).count();
}

int64_t median(std::vector<int64_t> values) {
    std::sort(values.begin(), values.end());
    size_t half = values.size() / 2;
    return values.size() % 2 ? values[half] : (values[half - 1] + values[half]) / 2;
}

// Calls `move(first, count)` for `elements`, some at a time.
template <typename Move>
void in_chunks(int64_t elements, Move move) {
    for (int64_t at = 0; at < elements; at += kChunkElements)
        move(at, static_cast<size_t>(std::min(kChunkElements, elements - at)));
}

// The tensors of one sublayer in device memory: loaded when made, freed when it goes.
class Residents {
  public:
    Residents(const Engine& engine, const Plan& plan, const Sublayer& sublayer)
        : tensors(sublayer.tensors), engine_(engine), plan_(plan) {
        for (const Tensor& tensor : tensors) {
            fenced_.emplace_back(engine, tensor.bytes(), tensor.dtype);
            addresses.push_back(fenced_.back().data());
            for (const Part& part : tensor.loads) load(tensor, part, addresses.back());
        }
    }

    void store() const {
        for (size_t i = 0; i < tensors.size(); ++i)
            if (tensors[i].store) store(tensors[i], addresses[i]);
    }

    void check_fences() const {
        for (size_t i = 0; i < tensors.size(); ++i)
            if (!fenced_[i].fences_intact(engine_))
                throw SublayerError("overrun", "bytes before or behind tensor " +
                                                   quote(tensors[i].name) + " were changed");
    }

    const std::vector<Tensor>& tensors;
    Addresses addresses;

  private:
    void load(const Tensor& tensor, const Part& part, char* device) const {
        const Storage& from = part.from;
        size_t in_bytes = dtype_bytes(from.dtype), out_bytes = dtype_bytes(tensor.dtype);
        std::vector<char> read, ready;
        device += part.first * static_cast<int64_t>(out_bytes);
        in_chunks(part.count, [&](int64_t first, size_t count) {
            read.resize(count * in_bytes), ready.resize(count * out_bytes);
            plan_.files[from.file].read(read.data(), read.size(),
                                        from.offset + first * static_cast<int64_t>(in_bytes));
            convert(read.data(), from.dtype, ready.data(), tensor.dtype, count);
            engine_.copy_in(device + first * static_cast<int64_t>(out_bytes), ready.data(),
                            ready.size());
        });
    }

    void store(const Tensor& tensor, const char* device) const {
        std::vector<char> ready;
        in_chunks(tensor.count, [&](int64_t first, size_t count) {
            int64_t at = first * static_cast<int64_t>(dtype_bytes(tensor.dtype));
            ready.resize(count * dtype_bytes(tensor.dtype));
            engine_.copy_out(ready.data(), device + at, ready.size());
            plan_.files[tensor.store->file].write(ready.data(), ready.size(),
                                                  tensor.store->offset + at);
        });
    }

    const Engine& engine_;
    const Plan& plan_;
    std::vector<FencedTensor> fenced_;
};

// One op of a resident sublayer, launched and checked.
class OpRun {
  public:
    OpRun(const Engine& engine, const Op& op, const Residents& residents, Pattern pattern)
        : engine_(engine),
          op_(op),
          dtype_(residents.tensors[op.out.tensor].dtype),
          out_(residents.addresses[op.out.tensor]),
          pattern_(pattern),
          launch_(prepare(engine, op, residents.addresses, residents.tensors)) {}

    // Median nanoseconds of `repeat` launches.
    int64_t run(int repeat) { return op_.reads_out() ? run_in_place(repeat) : run_watched(repeat); }

  private:
    int64_t timed_launch() {
        int64_t start = now_ns();
        launch_();
        engine_.synchronize();
        return now_ns() - start;
    }

    template <typename Before>
    int64_t measure(int repeat, Before before) {
        std::vector<int64_t> times;
        for (int i = repeat > 1 ? -1 : 0; i < repeat; ++i) {  // -1 warms up
            before();
            int64_t ns = timed_launch();
            if (i >= 0) times.push_back(ns);
        }
        return median(std::move(times));
    }

    // An op that reads its output gets the same one at each launch.
    int64_t run_in_place(int repeat) {
        if (repeat == 1) return measure(1, [] {});
        char* first = out_ + op_.out.low * static_cast<int64_t>(dtype_bytes(dtype_));
        auto bytes = static_cast<size_t>(op_.out.high - op_.out.low + 1) * dtype_bytes(dtype_);
        DeviceMemory saved = allocate(bytes);
        engine_.copy_device(saved.get(), first, bytes);
        return measure(repeat, [&] { engine_.copy_device(first, saved.get(), bytes); });
    }

    int64_t run_watched(int repeat) {
        OutputWatch watch(engine_, op_.out, dtype_, out_);
        int64_t ns = measure(repeat, [&] { watch.poison(pattern_); });
        watch.read();
        if (watch.stray())
            throw SublayerError("overrun", "bytes between the elements of the output were changed");
        auto suspects = watch.holding(pattern_);
        if (!suspects.empty()) judge(watch, suspects);
        return ns;
    }

    // A result may be the pattern's own bits, carried on from an input or by chance: over another
    // pattern it then comes out the same. An element that does not was not written before.
    void judge(OutputWatch& watch, const std::vector<size_t>& suspects) {
        watch.poison(Pattern::OtherFinite);
        timed_launch();
        watch.read();
        auto again = watch.holding(pattern_);
        for (size_t suspect : suspects)
            if (!std::binary_search(again.begin(), again.end(), suspect))
                throw SublayerError("unwritten", "element " + std::to_string(suspect) + " of " +
                                                     std::to_string(op_.out.count()) +
                                                     " of the output was never written");
    }

    const Engine& engine_;
    const Op& op_;
    Dtype dtype_;
    char* out_;
    Pattern pattern_;
    Launch launch_;
};

// Calls `run` and reports what it throws as a failure at `where`; false when it threw.
template <typename Run>
bool attempt(const std::string& where, Run run) {
    std::string reason, message;
    try {
        run();
        return true;
    } catch (const SublayerError& error) {
        reason = error.reason, message = error.what();
    } catch (const std::bad_alloc&) {
        reason = "memory", message = "out of host memory";
    } catch (const std::exception& error) {  // InfiniCore is C++: what it throws comes through
        reason = "status", message = std::string("the engine threw: ") + error.what();
    }
    emit("{\"event\": \"failed\", " + where + ", \"reason\": " + quote(reason) +
         ", \"message\": " + quote(message) + "}");
    return false;
}

// The bits of op(a, b) as float32, for one element each and `out` holding a NaN before.
uint32_t probe(const Engine& engine, Dtype dtype, Op op, float a, float b) {
    std::vector<Tensor> tensors(3, Tensor{"probe", dtype, {1, 1}, 1, {}, {}});
    std::vector<FencedTensor> memory;
    Addresses addresses;
    for (float value : {a, b, 0.0F}) {
        memory.emplace_back(engine, dtype_bytes(dtype), dtype);
        addresses.push_back(memory.back().data());
        uint32_t bits = 0;
        convert(&value, Dtype::Float32, &bits, dtype, 1);
        if (addresses.size() < 3) engine.copy_in(addresses.back(), &bits, dtype_bytes(dtype));
    }
    View view{0, 0, {1, 1}, {1, 1}, 0, 0};
    op.args = {view, view}, op.out = view;
    op.args[1].tensor = 1, op.out.tensor = 2;
    prepare(engine, op, addresses, tensors)();
    engine.synchronize();
    uint32_t narrow = 0, bits = 0;
    engine.copy_out(&narrow, addresses[2], dtype_bytes(dtype));
    convert(&narrow, dtype, &bits, Dtype::Float32, 1);
    return bits;
}

}  // namespace

void emit(const std::string& event_json) {
    std::printf("%s\n", event_json.c_str());
    std::fflush(stdout);
}

std::vector<std::string> probe_quirks(const Engine& engine, Dtype dtype) {
    std::vector<std::string> quirks;
    auto note = [&](const char* quirk, Op op, float a, float b, uint32_t sound_bits) {
        try {
            if (probe(engine, dtype, std::move(op), a, b) != sound_bits) quirks.push_back(quirk);
        } catch (const SublayerError&) {
            // An op that this device lacks has no quirk; the plan will meet the error itself.
        }
    };
    Op gemm{};
    gemm.kind = OpKind::Gemm, gemm.alpha = 1;
    note("gemm_reads_output", gemm, 2, 3, 0x40C00000);  // 6
    Op add{};
    add.kind = OpKind::Add;
    // 1 plus three quarters of a last place is the next number in a type that rounds to nearest.
    if (dtype == Dtype::Bfloat16) note("rounds_to_zero", add, 1, 0x1.8p-8F, 0x3F810000);
    if (dtype == Dtype::Float16) note("rounds_to_zero", add, 1, 0x1.8p-11F, 0x3F802000);
    return quirks;
}

bool run_sublayer(const Engine& engine, const Plan& plan, size_t index, bool gemm_reads_output) {
    std::string where = "\"sublayer\": " + std::to_string(index);
    std::optional<Residents> residents;
    if (!attempt(where, [&] { residents.emplace(engine, plan, plan.sublayers[index]); }))
        return false;
    int64_t total_ns = 0;
    for (const Op& op : plan.sublayers[index].ops) {
        std::string at = where + ", \"tap\": " + quote(op.tap);
        emit("{\"event\": \"op_start\", " + at + "}");
        at += ", \"op\": " + quote(op_name(op.kind));
        bool finite = gemm_reads_output && op.kind == OpKind::Gemm;
        int64_t ns = 0;
        if (!attempt(at, [&] {
                OpRun run(engine, op, *residents, finite ? Pattern::Finite : Pattern::NaN);
                ns = run.run(plan.repeat);
                residents->check_fences();
            }))
            return false;
        emit("{\"event\": \"op_done\", " + at + ", \"ns\": " + std::to_string(ns) + "}");
        total_ns += ns;
    }
    if (!attempt(where, [&] { residents->store(); })) return false;
    emit("{\"event\": \"sublayer_done\", " + where + ", \"ns\": " + std::to_string(total_ns) + "}");
    return true;
}

}  // namespace goldenctl
