"""Training runs: stages, variants, experiments over seeds, and the pieces on disk from which a stopped run resumes."""
