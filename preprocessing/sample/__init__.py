"""The sample corpus: sentences, voices and faces of people who do not exist, with known sentiment (synthetic data)."""
