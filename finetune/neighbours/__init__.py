"""Mechanisms of other papers, for comparison; they use only the public extension points (finetune/extensions.py)."""
