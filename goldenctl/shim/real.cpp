#include "real.h"

#include <dlfcn.h>
#include <link.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "trace.h"

namespace goldenctl {
namespace {

using Lookup = void* (*)(void*, const char*);

// The C library's dlsym: under its own name this library has one in front of it.
Lookup real_dlsym() {
    static std::atomic<void*> found{nullptr};
    for (const char* version : {"GLIBC_2.34", "GLIBC_2.2.5", "GLIBC_2.17", "GLIBC_2.0"})
        if (!found) found = ::dlvsym(RTLD_NEXT, "dlsym", version);
    return reinterpret_cast<Lookup>(found.load());
}

int note_object(dl_phdr_info* info, size_t, void* list) {
    auto& objects = *static_cast<std::vector<std::string>*>(list);
    if (info->dlpi_name && *info->dlpi_name) objects.emplace_back(info->dlpi_name);
    return 0;
}

bool is_of(void* address, const char* object) {
    Dl_info info{};
    return ::dladdr(address, &info) && info.dli_fname && !std::strcmp(info.dli_fname, object);
}

// The function as `object` itself has it, not as a library that it needs or this one does.
void* in_object(const char* object, const char* name) {
    void* handle = ::dlopen(object, RTLD_LAZY | RTLD_NOLOAD);
    void* address = handle ? real_dlsym()(handle, name) : nullptr;
    return address && is_of(address, object) ? address : nullptr;
}

bool is_own(const std::string& object) {
    return is_of(reinterpret_cast<void*>(&find_real), object.c_str());
}

const std::unordered_map<std::string_view, void*>& wrappers() {
    static const auto& table = *[] {
        auto* made = new std::unordered_map<std::string_view, void*>;
        for (const Wrapper* at = kWrappers; at->name; ++at) made->emplace(at->name, at->address);
        return made;
    }();
    return table;
}

}  // namespace

void* find_real(const char* name) {
    std::vector<std::string> objects;
    ::dl_iterate_phdr(note_object, &objects);
    for (bool by_name : {true, false})
        for (const std::string& object : objects) {
            size_t slash = object.rfind('/');
            std::string_view base = std::string_view(object).substr(slash + 1);
            bool named =
                base.rfind("libinfiniop.so", 0) == 0 || base.rfind("libinfinirt.so", 0) == 0;
            if (named != by_name || is_own(object)) continue;
            if (void* address = in_object(object.c_str(), name)) return address;
        }
    return nullptr;
}

std::string library_of(const char* name) {
    Dl_info info{};
    void* address = find_real(name);
    return address && ::dladdr(address, &info) && info.dli_fname ? info.dli_fname : "";
}

void* Real::find() {
    void* address = find_real(name_);
    if (!address) {
        std::fprintf(stderr, "goldenctl trace: no loaded library has %s\n", name_);
        ::_exit(kExitOther);
    }
    library_was_found();
    address_.store(address, std::memory_order_relaxed);
    return address;
}

}  // namespace goldenctl

// Programs that load InfiniCore themselves look its functions up, ctypes among them: they get
// the wrapper, wherever a lookup finds InfiniCore's own. A jump, not a call, ends the rest of
// the lookups: what RTLD_NEXT means depends on who calls.
extern "C" GOLDENCTL_EXPORT void* dlsym(void* handle, const char* name) {
    using namespace goldenctl;
    Lookup real = real_dlsym();
    if (std::strncmp(name, "infini", 6) != 0) return real(handle, name);
    auto found = wrappers().find(name);
    if (found == wrappers().end()) return real(handle, name);
    return real(handle, name) ? found->second : nullptr;
}

// For goldenctl itself, which digests a checkpoint with the code that the program's weights meet.
extern "C" GOLDENCTL_EXPORT void goldenctl_digest_rows(const char* data, size_t rows, size_t bytes,
                                                       uint64_t* digests) {
    for (size_t row = 0; row < rows; ++row)
        digests[row] = goldenctl::digest(data + row * bytes, bytes).low;
}
