#include "memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <map>
#include <mutex>

#include "real.h"

namespace goldenctl {
namespace {

constexpr int kToHost = 2;  // INFINIRT_MEMCPY_D2H
// A view whose elements are further apart than that is copied run by run.
constexpr size_t kSparse = 4;

std::mutex mutex;
auto& allocations = *new std::map<uintptr_t, size_t>;  // never destroyed: programs free late

bool is_mapped(const char* data, size_t bytes) {
    auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
    auto at = reinterpret_cast<uintptr_t>(data), start = at / page * page;
    size_t length = at + bytes - start;
    std::vector<unsigned char> resident((length + page - 1) / page);
    return ::mincore(reinterpret_cast<void*>(start), length, resident.data()) == 0;
}

// Copies the view's innermost runs, one after the other; only their axis is contiguous.
bool copy_runs(const Packing& packing, const char* data, size_t axis, char** target) {
    size_t run = static_cast<size_t>(packing.sizes[axis]) * packing.item;
    bool innermost = axis + 1 == packing.sizes.size();
    if (innermost && packing.steps[axis] == static_cast<int64_t>(packing.item)) {
        bool done = copy_from_device(*target, data, run);
        *target += run;
        return done;
    }
    for (int64_t i = 0; i < packing.sizes[axis]; ++i, data += packing.steps[axis]) {
        if (!innermost && !copy_runs(packing, data, axis + 1, target)) return false;
        if (!innermost) continue;
        if (!copy_from_device(*target, data, packing.item)) return false;
        *target += packing.item;
    }
    return true;
}

}  // namespace

void note_allocation(const void* pointer, size_t bytes) {
    std::lock_guard<std::mutex> lock(mutex);
    allocations[reinterpret_cast<uintptr_t>(pointer)] = bytes;
}

size_t forget_allocation(const void* pointer) {
    std::lock_guard<std::mutex> lock(mutex);
    auto found = allocations.find(reinterpret_cast<uintptr_t>(pointer));
    if (found == allocations.end()) return 0;
    size_t bytes = found->second;
    allocations.erase(found);
    return bytes;
}

const char* unreadable(const char* data, size_t bytes, bool on_host) {
    auto at = reinterpret_cast<uintptr_t>(data);
    {
        std::lock_guard<std::mutex> lock(mutex);
        auto next = allocations.upper_bound(at);
        if (next != allocations.begin()) {
            auto [start, size] = *std::prev(next);
            if (at < start + size || (at == start && size == 0))
                return at + bytes <= start + size ? nullptr : "it ends beyond its allocation";
        }
    }
    return !on_host || is_mapped(data, bytes) ? nullptr : "its memory is not mapped";
}

bool copy_from_device(void* target, const void* source, size_t bytes) {
    using Memcpy = int (*)(void*, const void*, size_t, int);
    static auto real = reinterpret_cast<Memcpy>(find_real("infinirtMemcpy"));
    return real && real(target, source, bytes, kToHost) == 0;
}

const char* packed_on_host(const Packing& packing, const char* data, bool on_host,
                           std::vector<char>* buffer) {
    if (on_host && packing.contiguous()) return data;
    if (buffer->size() < packing.bytes()) buffer->resize(packing.bytes());
    if (on_host) {
        pack(packing, data, buffer->data());
        return buffer->data();
    }
    if (packing.contiguous())
        return copy_from_device(buffer->data(), data, packing.bytes()) ? buffer->data() : nullptr;
    auto span = static_cast<size_t>(packing.end - packing.first);
    if (span > kSparse * packing.bytes()) {
        char* target = buffer->data();
        return copy_runs(packing, data, 0, &target) ? buffer->data() : nullptr;
    }
    std::vector<char> whole(span);
    if (!copy_from_device(whole.data(), data + packing.first, span)) return nullptr;
    pack(packing, whole.data() - packing.first, buffer->data());
    return buffer->data();
}

void reset_memory_lock() { new (&mutex) std::mutex; }

}  // namespace goldenctl
