#include "weights.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <iterator>
#include <set>
#include <stdexcept>

#include "json.h"
#include "number.h"

namespace engine {
namespace {

[[noreturn]] void fail(const std::string& where, const std::string& what) {
    throw std::runtime_error(where + ": " + what);
}

std::shared_ptr<const char> map_file(const std::string& path, size_t& bytes) {
    int file = ::open(path.c_str(), O_RDONLY);
    struct stat status;
    if (file < 0 || fstat(file, &status) != 0) fail(path, "cannot be read");
    bytes = static_cast<size_t>(status.st_size);
    void* data = bytes ? mmap(nullptr, bytes, PROT_READ, MAP_PRIVATE, file, 0) : MAP_FAILED;
    close(file);
    if (data == MAP_FAILED) fail(path, "cannot be mapped");
    return {static_cast<const char*>(data),
            [bytes](const char* start) { munmap(const_cast<char*>(start), bytes); }};
}

infiniDtype_t stored_dtype(const std::string& name) {
    if (name == "F32") return INFINI_DTYPE_F32;
    if (name == "BF16") return INFINI_DTYPE_BF16;
    if (name == "F16") return INFINI_DTYPE_F16;
    throw std::runtime_error("weights of dtype " + name + " are not supported");
}

std::vector<std::string> shards(const std::string& folder) {
    std::ifstream index(folder + "/model.safetensors.index.json", std::ios::binary);
    if (!index) return {"model.safetensors"};
    Json json = parse_json({std::istreambuf_iterator<char>(index), {}});
    std::set<std::string> names;
    for (const auto& [tensor, file] : json["weight_map"].object()) names.insert(file.string());
    return {names.begin(), names.end()};
}

}  // namespace

Weights::Weights(const std::string& folder) {
    for (const std::string& shard : shards(folder)) open(folder + "/" + shard);
}

// A safetensors file: the header's length in 8 bytes, the header as JSON, the tensors' bytes.
void Weights::open(const std::string& path) {
    size_t bytes = 0;
    files_.push_back(map_file(path, bytes));
    const char* start = files_.back().get();
    uint64_t length = 0;
    if (bytes >= sizeof length) std::memcpy(&length, start, sizeof length);
    if (length == 0 || length > bytes - sizeof length) fail(path, "is not a safetensors file");
    const char* header = start + sizeof length;
    const char* data = header + length;
    size_t data_bytes = bytes - sizeof length - length;
    Json json = parse_json({header, data});
    for (const auto& [name, tensor] : json.object()) {
        if (name == "__metadata__") continue;
        Entry entry{stored_dtype(tensor["dtype"].string()), {}, nullptr, 0};
        size_t elements = 1;
        for (const Json& size : tensor["shape"].array()) {
            entry.shape.push_back(size.integer());
            elements *= entry.shape.back();
        }
        const Json::Array& place = tensor["data_offsets"].array();
        if (place.size() != 2) fail(path, name + " has no place");
        size_t first = place[0].integer(), end = place[1].integer();
        if (first > end || end > data_bytes || end - first != elements * dtype_bytes(entry.dtype))
            fail(path, name + " lies outside the file, or is of another size than its shape's");
        entry.data = data + first;
        entry.bytes = end - first;
        entries_[name] = entry;
    }
}

Tensor Weights::load(const std::vector<std::string>& names, const Shape& shape,
                     infiniDtype_t dtype) const {
    std::vector<char> joined;
    Shape whole;
    for (const std::string& name : names) {
        auto found = entries_.find(name);
        if (found == entries_.end()) fail(name, "the checkpoint has no such tensor");
        const Entry& entry = found->second;
        if (whole.empty())
            whole = entry.shape;
        else
            whole[0] += entry.shape[0];
        if (entry.dtype == dtype) {
            joined.insert(joined.end(), entry.data, entry.data + entry.bytes);
            continue;
        }
        size_t count = entry.bytes / dtype_bytes(entry.dtype);
        std::vector<char> cast = from_float(to_float(entry.data, count, entry.dtype), dtype);
        joined.insert(joined.end(), cast.begin(), cast.end());
    }
    Tensor tensor(dtype, shape);
    if (whole != shape || joined.size() != tensor.elements() * dtype_bytes(dtype))
        fail(names[0], "is not of the shape that config.json says");
    tensor.load(joined.data());
    return tensor;
}

}  // namespace engine
