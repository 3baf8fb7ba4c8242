"""The network of fine-tuning: its parts, its inputs, and its alignment losses."""
