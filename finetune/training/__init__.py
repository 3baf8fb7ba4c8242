"""Training runs: the stages, the variants of every seed, what lies on disk so that a stopped run goes on."""
