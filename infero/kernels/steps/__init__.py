"""The labs' kernels: the simplest version of each that runs, one idea a kernel.

`elementwise.py` belongs to chapter 13, `attention.py` to 14 and `matmul.py` to 15. Every function
here that a lab has the learner write is a piece; `LLM(..., kernels="steps")` runs the engine on
them. The engine's own kernels, one directory up, do the same work faster, and the chapters walk
from these to those.
"""
