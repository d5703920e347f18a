// Keeps contents: each once, weights of the checkpoint by the digests of their rows alone.
#pragma once

#include <map>
#include <mutex>
#include <unordered_set>
#include <vector>

#include "digest.h"
#include "record.h"
#include "view.h"
#include "weights.h"

namespace goldenctl {

// A content of the log, or why it is not there.
struct Content {
    Digest id{0, 0};
    const char* left_out = nullptr;
};

class Contents {
  public:
    explicit Contents(Log* log) : log_(log) {}
    RowTable table;

    // Keeps the tensor at `data`. A large weight that was known there is looked at in samples.
    Content keep(const Tensor& tensor, const void* data, bool on_host);
    // Keeps bytes of the host that have no shape.
    Content keep_bytes(const char* data, size_t bytes);
    // Tells that memory was written or given back: a weight that was known there no longer is.
    void changed(const void* data, size_t bytes);
    void changed(const Tensor& tensor, const void* data);
    void forget();  // in a child process, whose log is another

  private:
    // A weight that was seen whole, from its lowest byte on; `samples` are digests of sets of
    // pieces of these `bytes`.
    struct Known {
        std::vector<int64_t> sizes, steps;
        size_t item;
        size_t bytes;
        std::vector<Digest> samples;
        unsigned visits;
        Digest id;
    };

    bool known(const Packing& packing, const char* data, bool on_host, Digest* id);
    void learn(const Packing& packing, const char* data, bool on_host, const Digest& id);
    Content store(const char* data, size_t bytes);
    bool part(const char* data, size_t bytes, const Digest& id);
    bool weight(const Recognised& found);
    bool is_new(const Digest& id);

    struct Low {
        size_t operator()(const Digest& id) const { return id.low; }
    };
    Log* log_;
    std::mutex mutex_;
    std::unordered_set<Digest, Low> seen_;
    std::multimap<const char*, Known> known_;
    size_t widest_ = 0;  // bytes of the largest known weight
};

}  // namespace goldenctl
