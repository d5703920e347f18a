#include "session.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <climits>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>

#include "real.h"
#include "trace.h"

namespace goldenctl {
namespace {

std::string setting(const char* name) {
    const char* value = std::getenv(name);
    return value ? value : "";
}

std::string own_file(const std::string& folder, const char* ending) {
    return folder + '/' + std::to_string(::getpid()) + ending;
}

std::string arguments_json() {
    std::ifstream file("/proc/self/cmdline", std::ios::binary);
    std::string json, word;
    for (int count = 0; count < 1000 && std::getline(file, word, '\0'); ++count)
        json += (json.empty() ? "" : ",") + quoted(word.substr(0, 400));
    return '[' + json + ']';
}

std::string bytes_of(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    std::ostringstream bytes;
    bytes << file.rdbuf();
    return bytes.str();
}

bool same_file(const std::string& a, const std::string& b) {
    struct stat first{}, second{};
    if (::stat(a.c_str(), &first) != 0 || ::stat(b.c_str(), &second) != 0) return false;
    if (first.st_dev == second.st_dev && first.st_ino == second.st_ino) return true;
    return first.st_size == second.st_size && bytes_of(a) == bytes_of(b);
}

// A file beside the log, which exists from the start: it tells that this library was loaded.
Progress* map_progress(const std::string& path) {
    int file = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (file < 0) return nullptr;
    void* data =
        ::ftruncate(file, sizeof(Progress)) != 0
            ? MAP_FAILED
            : ::mmap(nullptr, sizeof(Progress), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    ::close(file);
    if (data == MAP_FAILED) return nullptr;
    auto progress = static_cast<Progress*>(data);
    std::memcpy(progress->magic, "GCTTRACE", sizeof progress->magic);
    return progress;
}

}  // namespace

Session& session() {
    static Session& made = *new Session;  // never destroyed: engines free late
    return made;
}

Session::Session() : folder_(setting("GOLDENCTL_TRACE")) {
    active_ = !folder_.empty();
    if (!active_) return;
    if (std::getenv("GOLDENCTL_TRACE_OPS")) {
        filtered_ = true;
        std::istringstream ops(setting("GOLDENCTL_TRACE_OPS"));
        for (std::string op; std::getline(ops, op, ',');) ops_.insert(op);
    }
    if (Progress* mapped = map_progress(own_file(folder_, ".state"))) progress_ = mapped;
    ::pthread_atfork(nullptr, nullptr, [] { session().after_fork(); });
}

void Session::after_fork() {
    new (&mutex_) std::mutex;
    reset_trace_locks();
    log.forget();
    contents.forget();
    noted_.clear();
    numbers_ = 0;
    progress_ = &idle_;
    idle_ = {};
    if (Progress* mapped = map_progress(own_file(folder_, ".state"))) progress_ = mapped;
    bool begun = begun_;
    begun_ = false;
    if (begun) begin();
}

void Session::begin() {
    std::lock_guard<std::mutex> lock(mutex_);
    if (begun_ || !active_) return;
    begun_ = true;
    uint64_t limit = std::strtoull(setting("GOLDENCTL_TRACE_LIMIT").c_str(), nullptr, 10);
    if ((progress_->error = log.open(own_file(folder_, ".calls"), limit)))
        std::fprintf(stderr, "goldenctl trace: %s: cannot be written (%s); the program goes on\n",
                     own_file(folder_, ".calls").c_str(),
                     std::strerror(static_cast<int>(progress_->error)));
    std::string infiniop = library_of("infiniopCreateHandle");
    Header header("start");
    header.add("version", int64_t{1});
    header.add_raw("program", arguments_json());
    header.add("pid", int64_t{::getpid()});
    header.add("infiniop", infiniop);
    header.add("infinirt", library_of("infinirtInit"));
    log.append(header);
    check_library(infiniop);
    std::string table = setting("GOLDENCTL_TRACE_WEIGHTS");
    if (!table.empty()) contents.table.open(table);
    for (const char* const* at = kNotes; *at; ++at) {
        Header note("note");
        note.add("function", "");
        note.add("text", *at);
        log.append(note);
    }
}

void Session::check_library(const std::string& infiniop) {
    std::string expected = setting("GOLDENCTL_TRACE_INFINIOP");
    if (expected.empty() || infiniop.empty() || same_file(expected, infiniop)) return;
    Header header("other");
    header.add("infiniop", infiniop);
    log.append(header);
    ::_exit(kExitOther);  // its functions may take other arguments than these wrappers pass on
}

void Session::enters(const char* function) {
    std::strncpy(progress_->function, function, sizeof progress_->function - 1);
}

void Session::leaves() {
    __atomic_fetch_add(&progress_->calls, 1, __ATOMIC_RELAXED);
    progress_->error = log.error();
    progress_->function[0] = '\0';
}

void Session::note(const char* function, const std::string& text) {
    {
        std::lock_guard<std::mutex> lock(mutex_);
        if (!noted_.insert(function).second) return;
    }
    Header header("note");
    header.add("function", function);
    header.add("text", text);
    log.append(header);
}

void Session::end() {
    if (!begun_) return;
    Header header("end");
    header.add("calls", progress_->calls);
    header.add("skipped", progress_->skipped);
    log.append(header);
}

void library_was_found() { session().begin(); }

namespace {
__attribute__((constructor)) void load() { session(); }
__attribute__((destructor)) void unload() { session().end(); }
}  // namespace

}  // namespace goldenctl
