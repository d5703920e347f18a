// Owns the execution of sublayers and the events that tell of it.
#pragma once

#include <string>
#include <vector>

#include "device.h"
#include "plan.h"

namespace goldenctl {

// Prints one event on standard output and flushes it: the reader may outlive us.
void emit(const std::string& event_json);

// What this engine's arithmetic in `dtype` does that a reader of results should know:
// `gemm_reads_output` (C is read although beta is 0, so an old NaN stays), `rounds_to_zero`
// (a result is cut off, not rounded to nearest).
std::vector<std::string> probe_quirks(const Engine& engine, Dtype dtype);

// Runs one sublayer and emits its events; false when it failed.
bool run_sublayer(const Engine& engine, const Plan& plan, size_t index, bool gemm_reads_output);

}  // namespace goldenctl
