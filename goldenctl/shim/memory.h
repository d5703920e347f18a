// What is known of the program's memory, and how its bytes come to the host.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "view.h"

namespace goldenctl {

void note_allocation(const void* pointer, size_t bytes);
size_t forget_allocation(const void* pointer);  // returns its size, 0 where it is not known

// Says why `bytes` from `data` on must not be read, or null where they may: what infinirt gave
// is bounded, and other memory of the host is looked for in the page tables.
const char* unreadable(const char* data, size_t bytes, bool on_host);

// Brings a view's packed elements to the host: into `buffer`, or where they are if they lie so.
// Returns null where the device refuses.
const char* packed_on_host(const Packing& packing, const char* data, bool on_host,
                           std::vector<char>* buffer);

// Copies from a device by the real infinirtMemcpy; false where it refuses.
bool copy_from_device(void* target, const void* source, size_t bytes);

// In a child process: the locks may be held by threads that it does not have.
void reset_memory_lock();

}  // namespace goldenctl
