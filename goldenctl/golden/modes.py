"""The modes of replay: what each op and sublayer is given."""

BOTH = "op+sublayer"
MODES = (BOTH, "sublayer", "op", "chain")
