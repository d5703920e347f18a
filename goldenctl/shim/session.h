// The trace of this process: its environment, its log, what it wants to see.
#pragma once

#include <atomic>
#include <mutex>
#include <string>
#include <unordered_set>

#include "content.h"
#include "record.h"

namespace goldenctl {

// What the process that started the program reads while it runs, mapped from a file.
struct Progress {
    char magic[8];
    uint64_t calls, skipped;
    int64_t error;      // errno of the log, or 0
    char function[64];  // the launch that is running; empty between launches
};

class Session {
  public:
    Session();
    Log log;
    Contents contents{&log};

    // False without $GOLDENCTL_TRACE: then every function only passes its call on.
    bool active() const { return active_; }
    bool wants(const char* op) const { return active_ && (!filtered_ || ops_.count(op) > 0); }
    // False where nothing at all is to be kept: then nothing needs to be known of memory.
    bool wants_any() const { return active_ && !(filtered_ && ops_.empty()); }
    bool keeps_copies() const { return !filtered_; }
    uint64_t next_number() { return ++numbers_; }
    void count_skipped() { __atomic_fetch_add(&progress_->skipped, 1, __ATOMIC_RELAXED); }
    void enters(const char* function);
    void leaves();
    // Says something once for a function; see trace.calls.Note.
    void note(const char* function, const std::string& text);
    // Called when InfiniCore has been loaded: opens the log of this process.
    void begin();
    void end();
    void after_fork();

  private:
    void check_library(const std::string& infiniop);

    bool active_ = false, filtered_ = false;
    std::string folder_;
    std::unordered_set<std::string> ops_, noted_;
    std::atomic<uint64_t> numbers_{0};
    std::mutex mutex_;
    bool begun_ = false;
    Progress idle_{};
    Progress* progress_ = &idle_;
};

Session& session();

// In trace.cpp: in a child process, whose parent's threads may have held the locks.
void reset_trace_locks();

}  // namespace goldenctl
