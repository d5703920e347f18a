#include "run.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <new>

#include "errors.h"
#include "json.h"

namespace goldenctl {
namespace {

constexpr int64_t kChunkElements = int64_t{1} << 18;  // staged at once between file and device

int64_t now_ns() {
    auto now = std::chrono::steady_clock::now().time_since_epoch();
    return std::chrono::duration_cast<std::chrono::nanoseconds>(now).count();
}

// Nanoseconds of several launches: their median, and how far their quartiles lie apart.
struct Timing {
    int64_t median_ns = 0, iqr_ns = 0;
};

Timing timing(std::vector<int64_t> values) {
    std::sort(values.begin(), values.end());
    size_t last = values.size() - 1;
    return {(values[last / 2] + values[(last + 1) / 2]) / 2,
            values[3 * last / 4] - values[last / 4]};
}

// Moves elements of a tensor from their file to the device or back, some at a time.
void move(const Tensor& tensor, const Storage& storage, const File& file, char* device) {
    size_t file_width = dtype_bytes(storage.dtype), width = dtype_bytes(tensor.dtype);
    auto some = static_cast<size_t>(std::min(kChunkElements, storage.count));
    std::vector<char> raw(some * file_width), ready(some * width);
    for (int64_t done = 0; done < storage.count; done += kChunkElements) {
        size_t count = std::min(some, static_cast<size_t>(storage.count - done));
        int64_t offset = storage.offset + done * static_cast<int64_t>(file_width);
        char* part = device + (storage.first + done) * static_cast<int64_t>(width);
        if (!tensor.store) {
            file.read(raw.data(), count * file_width, offset);
            convert(raw.data(), storage.dtype, ready.data(), tensor.dtype, count);
            copy_in(part, ready.data(), count * width);
        } else {
            copy_out(ready.data(), part, count * width);
            file.write(ready.data(), count * width, offset);
        }
    }
}

// A tensor that an op writes, on the host: as it was before a launch and as it was left.
class Watch {
  public:
    Watch(const View& view, size_t width, const Buffer& buffer)
        : view_(view), width_(width), buffer_(buffer), before_(buffer.bytes()), after_(before_) {
        copy_out(before_.data(), buffer.data(), before_.size());
    }

    void poison(uint16_t value) {
        uint16_t bits[] = {value, value};
        each([&](size_t at) { std::memcpy(&before_[at], bits, width_); });
    }

    void restore() const { copy_in(buffer_.data(), before_.data(), before_.size()); }

    // Takes in what a launch left; before the next one, poison again.
    void look() {
        copy_out(after_.data(), buffer_.data(), after_.size());
        each([&](size_t at) { std::memcpy(&before_[at], &after_[at], width_); });
        if (before_ != after_)
            throw SublayerError("overrun", "bytes between the elements of the output were changed");
    }

    // Indices of the elements that held `value` when last looked at.
    std::vector<int64_t> holding(uint16_t value) const {
        uint16_t bits[] = {value, value};
        int64_t index = 0;
        std::vector<int64_t> found;
        each([&](size_t at) {
            if (std::memcmp(&after_[at], bits, width_) == 0) found.push_back(index);
            ++index;
        });
        return found;
    }

  private:
    template <typename Visit>
    void each(const Visit& visit) const {
        view_.each(view_.shape.size(),
                   [&](int64_t element) { visit(static_cast<size_t>(element) * width_); });
    }

    const View& view_;
    size_t width_;
    const Buffer& buffer_;
    std::vector<char> before_, after_;
};

// Launches an op `repeat` times, checks what it wrote, and returns the times. An op that reads
// its output finds the same one each time; any other finds poison.
Timing run_op(const Op& op, const Sublayer& sublayer, const std::vector<Buffer>& buffers,
              int repeat, size_t poison) {
    size_t out = op.out().tensor;
    uint16_t other = kPoisons[poison == 1 ? 2 : 1];
    uint16_t value = op.parameters.count("beta") && poison == 0 ? kPoisons[2] : kPoisons[poison];
    Launch launch = prepare(op, sublayer, buffers);
    Watch watch(op.out(), dtype_bytes(sublayer.tensors[out].dtype), buffers[out]);
    auto timed_launch = [&] {
        watch.restore();
        if (launch.workspace) launch.workspace->poison(kPoisons[poison]);
        int64_t start = now_ns();
        launch.run();
        check(infinirtDeviceSynchronize(), "infinirtDeviceSynchronize");
        return now_ns() - start;
    };
    if (!op.reads_out()) watch.poison(value);
    if (repeat > 1) timed_launch();  // warms up
    std::vector<int64_t> times;
    for (int i = 0; i < repeat; ++i) times.push_back(timed_launch());
    watch.look();
    if (launch.workspace && !launch.workspace->guards_intact())
        throw SublayerError("overrun", "bytes before or behind the workspace were changed");
    auto suspects = op.reads_out() ? std::vector<int64_t>{} : watch.holding(value);
    if (suspects.empty()) return timing(std::move(times));
    // A result may be the poison's own bits, carried on from an input or by chance: over other
    // poison it then comes out the same. An element that does not was not written before.
    watch.poison(other);
    timed_launch();
    watch.look();
    auto again = watch.holding(value);
    for (int64_t suspect : suspects)
        if (!std::binary_search(again.begin(), again.end(), suspect))
            throw SublayerError("unwritten",
                                say("element ", suspect, " of the output was never written"));
    return timing(std::move(times));
}

// Calls `run` and reports what it throws, with the members of `event`; false when it threw.
template <typename Run>
bool attempt(std::vector<Member> event, Run run) {
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
    event.insert(event.begin(), {"event", quote("failed")});
    event.insert(event.end(), {{"reason", quote(reason)}, {"message", quote(message)}});
    emit(event);
    return false;
}

// The bits of op(a, b) as float32, for one element each and `out` holding a NaN before.
uint32_t probe(Dtype dtype, Op op, float a, float b) {
    Sublayer sublayer{std::vector<Tensor>(3, Tensor{"", dtype, 1, {}, {}}), {}};
    std::vector<Buffer> buffers;
    char value[sizeof(float)];
    for (size_t i = 0; i < 3; ++i) {
        op.views.push_back(View{(i + 2) % 3, 0, {1, 1}, {1, 1}, 0, 0});  // out is the last
        convert(reinterpret_cast<const char*>(i == 0 ? &a : &b), Dtype::Float32, value, dtype, 1);
        buffers.emplace_back(dtype_bytes(dtype)).poison(kPoisons[0]);
        if (i < 2) copy_in(buffers[i].data(), value, buffers[i].bytes());
    }
    prepare(op, sublayer, buffers).run();
    check(infinirtDeviceSynchronize(), "infinirtDeviceSynchronize");
    uint32_t bits = 0;
    copy_out(value, buffers[2].data(), buffers[2].bytes());
    convert(value, dtype, reinterpret_cast<char*>(&bits), Dtype::Float32, 1);
    return bits;
}

}  // namespace

void emit(const std::vector<Member>& members) {
    std::printf("%s\n", object(members).c_str());
    std::fflush(stdout);
}

std::vector<std::string> probe_quirks(Dtype dtype) {
    std::vector<std::string> quirks;
    auto note = [&](const char* quirk, const Op& op, float a, float b, uint32_t sound_bits) {
        try {
            if (probe(dtype, op, a, b) != sound_bits) quirks.push_back(quote(quirk));
        } catch (const SublayerError&) {
            // An op that this device lacks has no quirk; the plan will meet the error itself.
        }
    };
    Op gemm{&op_kind("gemm"), "", {}, {{"alpha", 1}, {"beta", 0}}},
        add{&op_kind("add"), "", {}, {}};
    note("gemm_reads_output", gemm, 2, 3, 0x40C00000);  // 6
    // 1 plus three quarters of a last place is the next number in a type that rounds to nearest.
    if (dtype == Dtype::Bfloat16) note("rounds_to_zero", add, 1, 0x1.8p-8F, 0x3F810000);
    if (dtype == Dtype::Float16) note("rounds_to_zero", add, 1, 0x1.8p-11F, 0x3F802000);
    return quirks;
}

bool run_sublayer(const Plan& plan, const std::deque<File>& files, size_t index, size_t poison) {
    const Sublayer& sublayer = plan.sublayers[index];
    const Member where{"sublayer", say(index)};
    std::vector<Buffer> buffers;
    auto load = [&] {
        for (const Tensor& tensor : sublayer.tensors) {
            buffers.emplace_back(tensor.bytes()).poison(kPoisons[poison]);
            for (const Storage& from : tensor.loads)
                move(tensor, from, files[from.file], buffers.back().data());
        }
    };
    auto store = [&] {
        for (size_t i = 0; i < buffers.size(); ++i)
            if (auto& to = sublayer.tensors[i].store)
                move(sublayer.tensors[i], *to, files[to->file], buffers[i].data());
    };
    auto check_guards = [&] {
        for (size_t i = 0; i < buffers.size(); ++i)
            if (!buffers[i].guards_intact())
                throw SublayerError("overrun",
                                    say("bytes before or behind tensor ",
                                        quote(sublayer.tensors[i].name), " were changed"));
    };
    if (!attempt({where}, load)) return false;
    int64_t total_ns = 0;
    for (const Op& op : sublayer.ops) {
        const Member tap{"tap", quote(op.tap)}, kind{"op", quote(op.kind->name)};
        emit({{"event", quote("op_start")}, where, tap});
        Timing took;
        auto run = [&] {
            took = run_op(op, sublayer, buffers, plan.repeat, poison);
            check_guards();
        };
        if (!attempt({where, tap, kind}, run)) return false;
        emit({{"event", quote("op_done")},
              where,
              tap,
              kind,
              {"ns", say(took.median_ns)},
              {"iqr_ns", say(took.iqr_ns)}});
        total_ns += took.median_ns;
    }
    if (!attempt({where}, store)) return false;
    emit({{"event", quote("sublayer_done")}, where, {"ns", say(total_ns)}});
    return true;
}

}  // namespace goldenctl
