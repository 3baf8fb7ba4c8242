"""The network of fine-tuning: its parts, its inputs, and the losses that bring its spaces together."""
