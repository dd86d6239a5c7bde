"""Every quantized format through the engine on a CUDA device: the suite of tests/quant.

The tests imported from tests/quant/test_engine_quantized.py run here with `device` as "cuda": the
Triton kernels instead of PyTorch's, CUDA graphs and a host that runs ahead. Run by
`make gpu STEP=tests`.
"""

from __future__ import annotations

import pytest
import torch

from tests.quant.test_engine_quantized import (  # noqa: F401
    test_a_folder_answers_like_the_model_in_memory,
    test_an_aborted_neighbour_and_several_samples,
    test_every_architecture,
    test_in_bfloat16,
    test_tokens_are_those_of_the_request_alone,
)

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: run `make gpu`"),
]


@pytest.fixture
def device() -> str:
    return "cuda"


@pytest.fixture(autouse=True)
def _strict_fp32() -> None:
    torch.backends.cuda.matmul.allow_tf32 = False
