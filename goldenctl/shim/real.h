// The functions that this library stands in front of.
#pragma once

#include <atomic>
#include <string>

#define GOLDENCTL_EXPORT __attribute__((visibility("default")))

namespace goldenctl {

// A function of InfiniCore, found when it is first called. RTLD_NEXT would find nothing in a
// library that Python loaded for itself alone, so the loaded libraries are looked through.
class Real {
  public:
    explicit constexpr Real(const char* name) : name_(name) {}
    // Ends the program, with a line that says so, where no loaded library has the function.
    void* get() {
        void* address = address_.load(std::memory_order_relaxed);
        return address ? address : find();
    }

  private:
    void* find();
    const char* name_;
    std::atomic<void*> address_{nullptr};
};

// The same for functions that an InfiniCore may lack: null where it does.
void* find_real(const char* name);

// The file that has the function `name`, or an empty text.
std::string library_of(const char* name);

// A wrapper by name, for programs that look functions up; in the generated source, ends in null.
struct Wrapper {
    const char* name;
    void* address;
};
extern const Wrapper kWrappers[];

}  // namespace goldenctl
