"""Mechanisms of other papers, for comparison; each uses the public extension points alone (finetune/extensions.py)."""
