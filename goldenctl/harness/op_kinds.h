// The ops that plans may hold, a row each: what a plan calls it, its parameters (sorted, a space
// behind each), what makes it ready, and its views, out first. Included where OP says what becomes
// of a row. goldenctl/ops/table.py has the same ops, for those who write plans.
OP("gather", "", gather, {"NM", 1}, {"VM", 1}, {"N", 1, true})
OP("rms_norm", "epsilon ", rms_norm, {"*M", 1}, {"*M", 1}, {"M", 1})
OP("rms_norm_once", "epsilon ", rms_norm, {"*M", 1}, {"*M", 1}, {"M", 1})
OP("rms_norm_plus_one", "epsilon ", nullptr, {"*M", 1}, {"*M", 1}, {"M", 1})
OP("scale", "alpha ", nullptr, {"*"}, {"*"})
OP("gemm", "alpha beta ", gemm, {"*MN"}, {"*MK"}, {"*KN"})
OP("rope", "algo ", rope, {"NHD", 1}, {"NHD", 1}, {"N", 1, true}, {"Pd", 2}, {"Pd", 2})
OP("causal_softmax", "", PLAIN(2, CausalSoftmax), {"*ST"}, {"*ST"})
OP("swiglu", "", PLAIN(3, SwiGLU), {"*"}, {"*"}, {"*"})
OP("geglu", "", nullptr, {"*"}, {"*"}, {"*"})
OP("route", "choices renormalise ", nullptr, {"NE", 1}, {"NE", 1})
OP("expert_linear", "choices ", nullptr, {"NCO", 1}, {"NCM", 1}, {"NE", 1}, {"EOM", 2})
OP("expert_sum", "choices ", nullptr, {"NM", 1}, {"NCM", 1}, {"NE", 1})
OP("add", "", PLAIN(3, Add), {"*"}, {"*"}, {"*"})
OP("rearrange", "", rearrange, {"*"}, {"*"})
OP("sdpa", "alpha ", nullptr, {"BHSD"}, {"BHSD"}, {"BKTD"}, {"BKTD"})
