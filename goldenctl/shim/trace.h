// What the generated functions call: descriptors as they are made, launches, memory.
#pragma once

#include <initializer_list>
#include <memory>
#include <string>
#include <vector>

#include "content.h"
#include "record.h"
#include "view.h"

namespace goldenctl {

constexpr int kExitOther = 97;  // the program loaded an InfiniCore that this was not built for

enum Io { kIn, kOut, kInOut };

// An enumerator of InfiniCore's headers; a list of them ends in a null name.
struct Name {
    int value;
    const char* name;
};

// A dtype of InfiniCore's headers; the list ends in a null name.
struct DType {
    int value;
    const char* name;
    size_t bytes;
};

extern const Name kDevices[];
extern const DType kDTypes[];
extern const char* const kNotes[];  // what the generator could not do; ends in null

// Scalars of a descriptor or a launch.
class Scalars {
  public:
    void add(const char* name, bool value) { header_.add(name, value); }
    void add(const char* name, double value) { header_.add(name, value); }
    void add(const char* name, float value) { header_.add(name, value); }
    void add(const char* name, const char* text) { header_.add(name, text ? text : ""); }
    void add(const char* name, int64_t value) { header_.add(name, value); }
    void add(const char* name, uint64_t value) { header_.add(name, value); }
    void add(const char* name, int value) { header_.add(name, int64_t{value}); }
    void add(const char* name, unsigned value) { header_.add(name, uint64_t{value}); }
    void add(const char* name, char value) { header_.add(name, int64_t{value}); }
    void add(const char* name, int value, const Name* names);
    const Header& header() const { return header_; }

  private:
    Header header_;
};

// An op descriptor while it is made: its tensors are copied before InfiniCore sees them.
class Creation {
  public:
    Creation(bool wanted, std::initializer_list<const void*> tensors);
    bool wanted() const { return wanted_; }
    Scalars scalars;
    int end(int status, void* descriptor);  // the address of the new descriptor's pointer

  private:
    bool wanted_;
    std::vector<Tensor> tensors_;
};

// What an op descriptor was made of; `scalars` are JSON.
struct Described {
    std::vector<Tensor> tensors;
    std::string scalars = "{}";
};

// Whether launches of an op are to be kept; the answer never changes.
bool wants(const char* op);

// One launch of an op. What it is made of is told only where it is wanted.
class Launch {
  public:
    Launch(bool wanted, const char* op, const char* function, const void* descriptor, void* stream);
    ~Launch();
    bool wanted() const { return wanted_; }
    Scalars scalars;
    void operand(const char* name, const void* data, Io io, size_t tensor);
    void operand(const char* name, const void* data, Io io, Tensor tensor);
    void not_followed(const char* names) const;      // parameters that point to what is not known
    int64_t size(size_t tensor, size_t axis) const;  // 0 where there is no such axis
    void begin();
    int end(int status);

  private:
    struct Operand {
        const char* name;
        const void* data;
        Io io;
        Tensor tensor;
        Content before, after;
    };
    std::string args() const;
    void synchronise() const;

    const char *op_, *function_;
    const void* descriptor_;
    void* stream_;
    bool wanted_, on_host_ = true;
    std::vector<Operand> operands_;
    std::shared_ptr<const Described> made_of_;  // the descriptor
    uint64_t number_ = 0, began_ns_ = 0;
    int device_ = 0, device_id_ = 0;
};

Tensor row_major(const char* dtype, std::vector<int64_t> shape);

// Called with what InfiniCore returned, or before the call where there is no `status`.
void tensor_made(int status, void* made, size_t axes, const void* shape, const void* strides,
                 int dtype);
void tensor_destroyed(void* tensor);
void descriptor_destroyed(void* descriptor);
void allocated(int status, void* made, size_t bytes);
void freed(void* pointer);
void copied(int status, void* target, const void* source, size_t bytes, int direction,
            void* stream = nullptr);
void filled(int status, void* target, int value, size_t bytes);
void capturing(bool on);
void graph_launched();
void passed_through(const char* function);
void library_was_found();

}  // namespace goldenctl
