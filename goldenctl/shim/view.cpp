#include "view.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <numeric>

namespace goldenctl {
namespace {

// Copies `count` elements that are `step` bytes apart; the size is known where it is usual.
template <typename Item>
char* gather(const char* data, int64_t count, int64_t step, char* target) {
    for (; count > 0; --count, data += step, target += sizeof(Item))
        std::memcpy(target, data, sizeof(Item));
    return target;
}

char* gather_line(const char* data, int64_t count, int64_t step, size_t item, char* target) {
    if (step == static_cast<int64_t>(item)) {
        std::memcpy(target, data, static_cast<size_t>(count) * item);
        return target + static_cast<size_t>(count) * item;
    }
    if (item == 2) return gather<uint16_t>(data, count, step, target);
    if (item == 4) return gather<uint32_t>(data, count, step, target);
    for (; count > 0; --count, data += step, target += item) std::memcpy(target, data, item);
    return target;
}

}  // namespace

Packing::Packing(const Tensor& tensor) : item(tensor.item) {
    std::vector<size_t> axes;
    for (size_t axis = 0; axis < tensor.shape.size(); ++axis)
        if (tensor.shape[axis] != 1 && tensor.strides[axis] != 0) axes.push_back(axis);
    std::stable_sort(axes.begin(), axes.end(), [&](size_t a, size_t b) {
        return std::llabs(tensor.strides[a]) > std::llabs(tensor.strides[b]);
    });
    bool empty = std::count(tensor.shape.begin(), tensor.shape.end(), 0) > 0;
    end = static_cast<int64_t>(item);
    for (size_t axis : axes) {
        sizes.push_back(tensor.shape[axis]);
        steps.push_back(tensor.strides[axis] * static_cast<int64_t>(item));
        count *= static_cast<size_t>(sizes.back());
        int64_t reach = steps.back() * (sizes.back() - 1);
        (reach < 0 ? first : end) += reach;
    }
    if (empty) sizes = {0}, steps = {0}, count = 0, first = end = 0;
}

bool Packing::contiguous() const {
    int64_t expected = static_cast<int64_t>(item);
    for (size_t axis = sizes.size(); axis > 0; --axis) {
        if (steps[axis - 1] != expected) return count == 0;
        expected *= sizes[axis - 1];
    }
    return true;
}

void pack(const Packing& packing, const char* data, char* target) {
    if (packing.count == 0) return;
    if (packing.sizes.empty()) {
        std::memcpy(target, data, packing.item);
        return;
    }
    size_t outer = packing.sizes.size() - 1;
    std::vector<int64_t> index(outer, 0);
    while (true) {
        target =
            gather_line(data, packing.sizes[outer], packing.steps[outer], packing.item, target);
        size_t axis = outer;
        for (; axis > 0; --axis) {
            data += packing.steps[axis - 1];
            if (++index[axis - 1] < packing.sizes[axis - 1]) break;
            data -= packing.steps[axis - 1] * packing.sizes[axis - 1];
            index[axis - 1] = 0;
        }
        if (axis == 0) return;
    }
}

}  // namespace goldenctl
