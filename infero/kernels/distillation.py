"""The distillation loss and its gradient over a large vocabulary, in one launch, on a GPU.

With 49,152 tokens the logits of a batch are the largest tensors of a training step, and PyTorch's
operations read and write each of them two dozen times. But the gradient of KL(p || q) with respect
to the student's logits is q - p and nothing more: two passes over the two rows are enough, one for
the normalisers, one that adds up the loss and puts the gradient where the student's logits were.
Chapter 6; the same is done for cross entropy in Liger Kernel (arXiv:2410.10989).
"""

from __future__ import annotations

import torch
from torch import Tensor

from infero.kernels.examples import Example
from infero.kernels.language import tl, triton

BLOCK, WARPS = 4096, 8


@triton.jit
def _kd(student, teacher, loss, vocab, s_stride, t_stride, BLOCK: tl.constexpr):
    """One row a program: its KL goes to `loss`, q - p to where the student's logits were."""
    row = tl.program_id(0).to(tl.int64)
    s_row, t_row = student + row * s_stride, teacher + row * t_stride
    lanes = tl.arange(0, BLOCK)
    s_top = tl.full([1], -float("inf"), tl.float32)
    t_top = tl.full([1], -float("inf"), tl.float32)
    s_sum = tl.full([1], 0.0, tl.float32)
    t_sum = tl.full([1], 0.0, tl.float32)
    for start in range(0, vocab, BLOCK):
        i = start + lanes
        s = tl.load(s_row + i, mask=i < vocab, other=-float("inf")).to(tl.float32)
        t = tl.load(t_row + i, mask=i < vocab, other=-float("inf")).to(tl.float32)
        s_new, t_new = tl.maximum(s_top, tl.max(s)), tl.maximum(t_top, tl.max(t))
        s_sum = s_sum * tl.exp(s_top - s_new) + tl.sum(tl.exp(s - s_new))
        t_sum = t_sum * tl.exp(t_top - t_new) + tl.sum(tl.exp(t - t_new))
        s_top, t_top = s_new, t_new
    s_all, t_all = s_top + tl.log(s_sum), t_top + tl.log(t_sum)
    total = tl.full([1], 0.0, tl.float32)
    for start in range(0, vocab, BLOCK):
        i = start + lanes
        inside = i < vocab
        log_q = tl.load(s_row + i, mask=inside, other=0.0).to(tl.float32) - s_all
        log_p = tl.load(t_row + i, mask=inside, other=0.0).to(tl.float32) - t_all
        p = tl.exp(log_p)
        total += tl.sum(tl.where(inside, p * (log_p - log_q), 0.0))
        tl.store(s_row + i, (tl.exp(log_q) - p).to(student.dtype.element_ty), mask=inside)
    tl.store(loss + row + tl.arange(0, 1), total)


def kd(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """KL(teacher || student) of every row in nats: [tokens] float32.

    student_logits, teacher_logits: [tokens, vocab], elements of a row side by side. The student's
    are replaced by the gradient of the sum: softmax(student) - softmax(teacher).
    """
    tokens, vocab = student_logits.shape
    loss = torch.empty(tokens, dtype=torch.float32, device=student_logits.device)
    if tokens:
        _kd[(tokens,)](student_logits, teacher_logits, loss, vocab, student_logits.stride(0),
                       teacher_logits.stride(0), BLOCK=BLOCK, num_warps=WARPS)
    return loss


def examples() -> list[Example]:
    """For the cross-compile test."""
    signature = {"student": "*fp16", "teacher": "*fp16", "loss": "*fp32", "vocab": "i32",
                 "s_stride": "i32", "t_stride": "i32", "BLOCK": "constexpr"}
    return [Example(_kd, signature, {"BLOCK": BLOCK}, WARPS,
                    aligned=("vocab", "s_stride", "t_stride"))]
