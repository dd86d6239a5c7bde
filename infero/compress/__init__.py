"""Fewer weights: pruning and distillation, chapter 6."""
