"""Audio features: one file per extractor, and `blocks.py`, which joins several."""
