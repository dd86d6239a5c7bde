"""The checks of the exercises, one module a lab.

`lab01.rms_norm(c)` checks `infero.model.rms_norm`. A check returns None when the candidate is
right and raises `infero.lab.checking.Mistake` otherwise.
"""
