// Execution of sublayers, and the events that tell of it.
#pragma once

#include <deque>
#include <string>
#include <vector>

#include "engine.h"
#include "files.h"
#include "json.h"
#include "plan.h"

namespace goldenctl {

// Prints one JSON object on standard output and flushes it: the reader may outlive us.
void emit(const std::vector<Member>& members);

// What this engine's arithmetic in `dtype` does that a reader of results should know:
// `gemm_reads_output` (C is read although beta is 0, so an old NaN stays), `rounds_to_zero`
// (a result is cut off, not rounded to nearest).
std::vector<std::string> probe_quirks(Dtype dtype);

// Runs one sublayer, unwritten memory holding kPoisons[poison], and emits its events; false when
// it failed.
bool run_sublayer(const Plan& plan, const std::deque<File>& files, size_t index, size_t poison);

}  // namespace goldenctl
