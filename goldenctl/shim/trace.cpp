#include "trace.h"

#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <unordered_map>
#include <unordered_set>

#include "memory.h"
#include "real.h"
#include "session.h"

namespace goldenctl {
namespace {

// Never destroyed: engines free descriptors while the program ends.
auto& tensors = *new std::unordered_map<const void*, Tensor>;
auto& descriptors = *new std::unordered_map<const void*, std::shared_ptr<const Described>>;
std::mutex descriptors_mutex;

std::atomic<int> threads{0};
thread_local int thread = threads++;
thread_local int depth = 0;  // of launches: what InfiniCore calls by itself is not the program's
thread_local bool in_capture = false;

uint64_t now_ns() {
    return static_cast<uint64_t>(
        std::chrono::nanoseconds(std::chrono::steady_clock::now().time_since_epoch()).count());
}

// What a function of InfiniCore says of a descriptor: the type of its device, or which of them.
int asked(void* function, const void* descriptor) {
    int answer = 0;
    if (function) reinterpret_cast<int (*)(const void*, int*)>(function)(descriptor, &answer);
    return answer;
}

const char* device_name(int device) {
    for (const Name* at = kDevices; at->name; ++at)
        if (at->value == device) return at->name;
    return "unknown";
}

bool is_host(int device) { return std::strcmp(device_name(device), "cpu") == 0; }

int current_device() {
    using Get = int (*)(int*, int*);
    static auto real = reinterpret_cast<Get>(find_real("infinirtGetDevice"));
    int device = 0, id = 0;
    if (real) real(&device, &id);
    return device;
}

void synchronise_stream(void* stream) {
    using Synchronise = int (*)(void*);
    static auto real = reinterpret_cast<Synchronise>(find_real("infinirtStreamSynchronize"));
    if (real) real(stream);
}

std::string pointer_json(const void* pointer) {
    return std::to_string(reinterpret_cast<uintptr_t>(pointer));
}

std::string list_json(const std::vector<int64_t>& numbers) {
    std::string json = "[";
    for (size_t i = 0; i < numbers.size(); ++i) json += (i ? "," : "") + std::to_string(numbers[i]);
    return json + ']';
}

// Joins the scalars of a descriptor and of a launch.
std::string joined(const std::string& first, const std::string& second) {
    if (first == "{}") return second;
    if (second == "{}") return first;
    return first.substr(0, first.size() - 1) + ',' + second.substr(1);
}

const Tensor* tensor_of(const void* descriptor) {
    auto found = tensors.find(descriptor);
    return found == tensors.end() ? nullptr : &found->second;
}

void add_content(Header* header, const char* key, const Content& content) {
    if (content.left_out)
        header->add("left_out", content.left_out);
    else
        header->add(key, content.id);
}

// True where an event of the program itself is to be logged.
bool watches_memory() { return session().wants_any() && depth == 0; }

Header memory_event(const char* kind) {
    Header header(kind);
    header.add("number", session().next_number());
    header.add("thread", int64_t{thread});
    return header;
}

}  // namespace

void reset_trace_locks() {
    new (&descriptors_mutex) std::mutex;
    reset_memory_lock();
}

Tensor row_major(const char* dtype, std::vector<int64_t> shape) {
    Tensor tensor;
    tensor.dtype = dtype;
    for (const DType* at = kDTypes; at->name; ++at)
        if (std::strcmp(at->name, dtype) == 0) tensor.item = at->bytes;
    tensor.strides.assign(shape.size(), 1);
    for (size_t axis = shape.size(); axis > 1; --axis)
        tensor.strides[axis - 2] = tensor.strides[axis - 1] * shape[axis - 1];
    tensor.shape = std::move(shape);
    return tensor;
}

void tensor_made(int status, void* made, size_t axes, const void* shape, const void* strides,
                 int dtype) {
    if (status != 0 || !session().wants_any()) return;
    const DType* known = kDTypes;
    while (known->name && known->value != dtype) ++known;
    auto sizes = static_cast<const size_t*>(shape);
    Tensor tensor = row_major(known->name ? known->name : "unknown", {sizes, sizes + axes});
    if (strides) {
        auto given = static_cast<const ptrdiff_t*>(strides);
        tensor.strides.assign(given, given + axes);
    }
    std::lock_guard<std::mutex> lock(descriptors_mutex);
    tensors[*static_cast<void**>(made)] = std::move(tensor);
}

void tensor_destroyed(void* tensor) {
    if (!session().wants_any()) return;
    std::lock_guard<std::mutex> lock(descriptors_mutex);
    tensors.erase(tensor);
}

void descriptor_destroyed(void* descriptor) {
    if (!session().wants_any()) return;
    std::lock_guard<std::mutex> lock(descriptors_mutex);
    descriptors.erase(descriptor);
}

bool wants(const char* op) { return session().wants(op); }

Creation::Creation(bool wanted, std::initializer_list<const void*> described) : wanted_(wanted) {
    if (!wanted) return;
    std::lock_guard<std::mutex> lock(descriptors_mutex);
    for (const void* tensor : described) {
        const Tensor* found = tensor_of(tensor);
        tensors_.push_back(found ? *found : Tensor{});
    }
}

int Creation::end(int status, void* descriptor) {
    if (status != 0 || !wanted_) return status;
    auto made = std::make_shared<Described>(Described{std::move(tensors_), scalars.header().str()});
    std::lock_guard<std::mutex> lock(descriptors_mutex);
    descriptors[*static_cast<void**>(descriptor)] = std::move(made);
    return status;
}

void Scalars::add(const char* name, int value, const Name* names) {
    for (; names->name; ++names)
        if (names->value == value) return header_.add(name, names->name);
    header_.add(name, int64_t{value});
}

Launch::Launch(bool wanted, const char* op, const char* function, const void* descriptor,
               void* stream)
    : op_(op), function_(function), descriptor_(descriptor), stream_(stream) {
    bool own = depth++ == 0;
    wanted_ = own && wanted;
    if (own && !wanted) session().count_skipped();
    if (!wanted_) return;
    {
        std::lock_guard<std::mutex> lock(descriptors_mutex);
        auto found = descriptors.find(descriptor);
        if (found != descriptors.end()) made_of_ = found->second;
    }
    if (made_of_) return;
    made_of_ = std::make_shared<Described>();
    session().note(function, "its descriptor was made before it could be seen");
}

Launch::~Launch() { --depth; }

int64_t Launch::size(size_t tensor, size_t axis) const {
    const std::vector<Tensor>& tensors = made_of_->tensors;
    if (tensor >= tensors.size() || axis >= tensors[tensor].shape.size()) return 0;
    return tensors[tensor].shape[axis];
}

void Launch::operand(const char* name, const void* data, Io io, size_t tensor) {
    // A tensor that may be left out has no descriptor.
    const std::vector<Tensor>& tensors = made_of_->tensors;
    if (tensor < tensors.size() && *tensors[tensor].dtype) operand(name, data, io, tensors[tensor]);
}

void Launch::operand(const char* name, const void* data, Io io, Tensor tensor) {
    operands_.push_back({name, data, io, std::move(tensor), {}, {}});
}

void Launch::not_followed(const char* names) const {
    session().note(function_, std::string("not followed: ") + names);
}

void Launch::synchronise() const {
    if (!on_host_) synchronise_stream(stream_);
}

void Launch::begin() {
    number_ = session().next_number();
    static void* const type = find_real("infiniopGetDescriptorDeviceType");
    static void* const which = find_real("infiniopGetDescriptorDeviceId");
    device_ = asked(type, descriptor_);
    device_id_ = asked(which, descriptor_);
    on_host_ = is_host(device_);
    session().enters(function_);
    Content captured{{}, "it went into a device graph"};
    if (!in_capture) synchronise();
    for (Operand& operand : operands_)
        if (operand.io != kOut)
            operand.before = in_capture
                                 ? captured
                                 : session().contents.keep(operand.tensor, operand.data, on_host_);
    began_ns_ = now_ns();
}

int Launch::end(int status) {
    if (!wanted_) return status;
    if (!in_capture) synchronise();
    uint64_t took_ns = now_ns() - began_ns_;
    Content captured{{}, "it went into a device graph"};
    for (Operand& operand : operands_) {
        if (operand.io == kIn) continue;
        session().contents.changed(operand.tensor, operand.data);
        if (status != 0)
            operand.after = {{}, "the call failed"};
        else if (in_capture)
            operand.after = captured;
        else
            operand.after = session().contents.keep(operand.tensor, operand.data, on_host_);
    }
    Header header("call");
    header.add("number", number_);
    header.add("thread", int64_t{thread});
    header.add("device", device_name(device_));
    header.add("device_id", int64_t{device_id_});
    header.add_raw("stream", pointer_json(stream_));
    header.add("op", op_);
    header.add("function", function_);
    header.add_raw("scalars", joined(made_of_->scalars, scalars.header().str()));
    header.add_raw("args", args());
    header.add("status", int64_t{status});
    header.add("time_ns", took_ns);
    session().log.append(header);
    session().leaves();
    return status;
}

std::string Launch::args() const {
    std::string json;
    for (const Operand& operand : operands_) {
        Header arg;
        arg.add("name", operand.name);
        arg.add("io", operand.io == kIn ? "in" : operand.io == kOut ? "out" : "inout");
        arg.add("dtype", operand.tensor.dtype);
        arg.add_raw("shape", list_json(operand.tensor.shape));
        arg.add_raw("strides", list_json(operand.tensor.strides));
        arg.add_raw("pointer", pointer_json(operand.data));
        if (operand.io != kOut) add_content(&arg, "before", operand.before);
        if (operand.io == kInOut && operand.before.left_out && operand.after.left_out) {
        } else if (operand.io != kIn) {
            add_content(&arg, "after", operand.after);
        }
        json += (json.empty() ? "" : ",") + arg.str();
    }
    return '[' + json + ']';
}

void allocated(int status, void* made, size_t bytes) {
    if (status != 0 || !session().wants_any()) return;
    note_allocation(*static_cast<void**>(made), bytes);
    if (!watches_memory()) return;
    Header header = memory_event("alloc");
    header.add_raw("pointer", pointer_json(*static_cast<void**>(made)));
    header.add("nbytes", uint64_t{bytes});
    session().log.append(header);
}

void freed(void* pointer) {
    if (!session().wants_any()) return;
    session().contents.changed(pointer, forget_allocation(pointer));
    if (!watches_memory()) return;
    Header header = memory_event("free");
    header.add_raw("pointer", pointer_json(pointer));
    session().log.append(header);
}

void copied(int status, void* target, const void* source, size_t bytes, int direction,
            void* stream) {
    constexpr size_t kMostKept = size_t{4} << 20;
    static const char* const names[] = {"h2h", "h2d", "d2h", "d2d"};
    if (status != 0 || !watches_memory() || direction < 0 || direction > 3) return;
    session().contents.changed(target, bytes);
    Header header = memory_event("copy");
    header.add_raw("target", pointer_json(target));
    header.add_raw("source", pointer_json(source));
    header.add("nbytes", uint64_t{bytes});
    header.add("direction", names[direction]);
    bool from_host = direction < 2 || is_host(current_device());
    if (bytes <= kMostKept && !in_capture && session().keeps_copies()) {
        if (!from_host) synchronise_stream(stream);
        Content content =
            from_host ? session().contents.keep_bytes(static_cast<const char*>(source), bytes)
                      : session().contents.keep(row_major("uint8", {static_cast<int64_t>(bytes)}),
                                                source, false);
        if (!content.left_out) header.add("content", content.id);
    }
    session().log.append(header);
}

void filled(int status, void* target, int value, size_t bytes) {
    if (status != 0 || !watches_memory()) return;
    session().contents.changed(target, bytes);
    Header header = memory_event("fill");
    header.add_raw("target", pointer_json(target));
    header.add("nbytes", uint64_t{bytes});
    header.add("value", int64_t{value});
    session().log.append(header);
}

void capturing(bool on) { in_capture = on; }

void graph_launched() {
    if (session().active())
        session().note("infinirtGraphLuanch", "what a device graph computes is not seen");
}

void passed_through(const char* function) {
    if (session().active() && depth == 0)
        session().note(function, "it is not understood and was passed through");
}

}  // namespace goldenctl
