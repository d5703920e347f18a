#include "content.h"

#include <algorithm>

#include "memory.h"

namespace goldenctl {
namespace {

// Larger contents are kept in parts, so that a cache of which one row changes is not kept again.
constexpr size_t kWhole = size_t{1} << 20, kPart = size_t{1} << 18;
// The most that is copied together for one tensor that does not lie together on the host.
constexpr size_t kMostGathered = size_t{1} << 32;
// Smaller weights are always looked at whole.
constexpr size_t kSampled = size_t{1} << 18;
// Of a view of columns, what lies between them is sampled with them, up to this many times more.
constexpr size_t kSparse = 8;
constexpr size_t kSets = 4, kPieces = 16, kPieceBytes = 1024;

// What a thread goes on holding for the next tensor, at most.
constexpr size_t kHeld = size_t{1} << 26;

thread_local std::vector<char> gathered;

struct Release {
    ~Release() {
        if (gathered.size() > kHeld) std::vector<char>().swap(gathered);
    }
};

// Digests one set of pieces, spread evenly; another set has its pieces between those.
bool sample(const char* data, size_t bytes, unsigned set, bool on_host, Digest* result) {
    char pieces[kPieces * kPieceBytes];
    for (size_t i = 0; i < kPieces; ++i) {
        size_t at = (bytes - kPieceBytes) / (kPieces * kSets) * (i * kSets + set);
        char* target = pieces + i * kPieceBytes;
        if (on_host)
            std::memcpy(target, data + at, kPieceBytes);
        else if (!copy_from_device(target, data + at, kPieceBytes))
            return false;
    }
    *result = digest(pieces, sizeof pieces);
    return true;
}

}  // namespace

bool Contents::is_new(const Digest& id) {
    std::lock_guard<std::mutex> lock(mutex_);
    return seen_.insert(id).second;
}

Content Contents::keep(const Tensor& tensor, const void* data, bool on_host) {
    if (tensor.item == 0) return {{}, "its dtype is not known"};
    if (!data) return {{}, "it has no memory"};
    Packing packing(tensor);
    const char* at = static_cast<const char*>(data);
    auto span = static_cast<size_t>(packing.end - packing.first);
    if (const char* why = unreadable(at + packing.first, span, on_host)) return {{}, why};
    Content content;
    if (known(packing, at, on_host, &content.id)) return content;
    if (packing.bytes() > kMostGathered && !(on_host && packing.contiguous()))
        return {{}, "it is larger than 4 GiB"};
    Release when_done;
    const char* packed = packed_on_host(packing, at, on_host, &gathered);
    if (!packed) return {{}, "the device did not let it be read"};
    Recognised found;
    if (!table.recognise(packed, packing, &found)) return store(packed, packing.bytes());
    if (!weight(found)) return {{}, "the log cannot be written"};
    learn(packing, at, on_host, found.id);
    return {found.id, nullptr};
}

Content Contents::keep_bytes(const char* data, size_t bytes) {
    if (const char* why = unreadable(data, bytes, true)) return {{}, why};
    Recognised found;
    if (!table.recognise(data, bytes, &found)) return store(data, bytes);
    return weight(found) ? Content{found.id, nullptr} : Content{{}, "the log cannot be written"};
}

bool Contents::weight(const Recognised& found) {
    if (!is_new(found.id)) return true;
    Header header("weight");
    header.add("id", found.id);
    header.add("row_bytes", found.row_bytes);
    header.add("form", found.transposed ? "transposed" : "rows");
    return log_->append(header, found.digests.data(), found.digests.size() * 8);
}

Content Contents::store(const char* data, size_t bytes) {
    if (log_->full()) return {{}, "the log has reached its limit"};
    if (bytes <= kWhole) {
        Digest id = digest(data, bytes);
        return part(data, bytes, id) ? Content{id, nullptr}
                                     : Content{{}, "the log cannot be written"};
    }
    std::vector<Digest> ids;
    for (size_t at = 0; at < bytes; at += kPart) {
        size_t length = std::min(kPart, bytes - at);
        ids.push_back(digest(data + at, length));
        if (!part(data + at, length, ids.back())) return {{}, "the log cannot be written"};
    }
    Digest id = digest(ids.data(), ids.size() * sizeof(Digest));
    id.high = mixed(id.high + bytes);  // no part that holds the same ids has the same name
    if (!is_new(id)) return {id, nullptr};
    Header header("join");
    header.add("id", id);
    header.add("nbytes", uint64_t{bytes});
    if (!log_->append(header, ids.data(), ids.size() * sizeof(Digest)))
        return {{}, "the log cannot be written"};
    return {id, nullptr};
}

bool Contents::part(const char* data, size_t bytes, const Digest& id) {
    if (log_->error()) return false;
    if (!is_new(id)) return true;
    Header header("bytes");
    header.add("id", id);
    return log_->append(header, data, bytes);
}

bool Contents::known(const Packing& packing, const char* data, bool on_host, Digest* id) {
    std::lock_guard<std::mutex> lock(mutex_);
    const char* start = data + packing.first;
    auto [at, end] = known_.equal_range(start);
    for (; at != end; ++at) {
        Known& weight = at->second;
        if (weight.sizes != packing.sizes || weight.steps != packing.steps ||
            weight.item != packing.item)
            continue;
        unsigned set = weight.visits++ % kSets;
        Digest now;
        *id = weight.id;
        if (sample(start, weight.bytes, set, on_host, &now) && now == weight.samples[set])
            return true;
        known_.erase(at);
        return false;
    }
    return false;
}

void Contents::learn(const Packing& packing, const char* data, bool on_host, const Digest& id) {
    auto span = static_cast<size_t>(packing.end - packing.first);
    if (span < kSampled || span > kSparse * packing.bytes()) return;
    const char* start = data + packing.first;
    Known weight{packing.sizes, packing.steps, packing.item, span, {}, 0, id};
    for (unsigned set = 0; set < kSets; ++set) {
        weight.samples.emplace_back();
        if (!sample(start, span, set, on_host, &weight.samples.back())) return;
    }
    std::lock_guard<std::mutex> lock(mutex_);
    widest_ = std::max(widest_, span);
    known_.emplace(start, std::move(weight));
}

void Contents::changed(const void* data, size_t bytes) {
    auto start = static_cast<const char*>(data);
    std::lock_guard<std::mutex> lock(mutex_);
    auto at = known_.lower_bound(start - std::min(widest_, reinterpret_cast<size_t>(start)));
    while (at != known_.end() && at->first < start + bytes)
        at = at->first + at->second.bytes > start ? known_.erase(at) : std::next(at);
}

void Contents::changed(const Tensor& tensor, const void* data) {
    Packing packing(tensor);
    changed(static_cast<const char*>(data) + packing.first,
            static_cast<size_t>(packing.end - packing.first));
}

void Contents::forget() {
    new (&mutex_) std::mutex;
    seen_.clear();
    known_.clear();
}

}  // namespace goldenctl
