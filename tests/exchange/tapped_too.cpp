#include <goldenctl_tap.h>

extern "C" void tap_elsewhere() {
    const int64_t shape[] = {2};
    const double values[] = {1.5, 2.5};
    goldenctl_tap("elsewhere", values, "float64", 1, shape, nullptr);
}
