"""How products are launched: formats as words, configurations, what can be tuned."""

from __future__ import annotations

import pytest
import torch

from infero import tune
from infero.kernels import formats, language, matmul, matmul_convert, matmul_tune
from tests.kernels.test_products import exact, made


def test_names_of_shapes() -> None:
    assert matmul.shape_class(made("dense", 8, 64, torch.bfloat16), False) == "bf16 8x64"
    assert matmul.shape_class(made("int4", 8, 64, torch.float16), True) == "int4 8x64 swiglu"
    assert matmul.shape_class(made("fp8", 8, 64, torch.float16), False, 5) == "fp8 8x64 m16"
    assert matmul.shape_class(made("int8", 8, 64, torch.float16), True, 33) == "int8 8x64 m64"
    assert [language.power_of_two(n) for n in (1, 2, 3, 16, 17)] == [1, 2, 4, 16, 32]


def test_rows_as_words() -> None:
    assert matmul.words_of(torch.zeros(3, 5, dtype=torch.float32)).dtype == torch.float32  # type: ignore[union-attr]
    assert matmul.words_of(torch.zeros(3, 6, dtype=torch.float16)).shape == (3, 3)  # type: ignore[union-attr]
    assert matmul.words_of(torch.zeros(3, 5, dtype=torch.float16)) is None
    assert matmul.words_of(torch.zeros(3, 6, dtype=torch.int8)) is None


@pytest.mark.parametrize("group,slices", [(128, 4), (256, 4), (64, 2), (192, 2), (32, 1), (96, 1)])
def test_slices_that_share_a_scale(group: int, slices: int) -> None:
    weight = made("int4", 2, 768, torch.float32, group)
    assert isinstance(weight, formats.Int4Weight)
    assert matmul.slices_a_scale(weight) == slices


def test_every_configuration_covers_its_shape() -> None:
    """A row in registers is at most one piece long; a tile of tokens is one of a few."""
    tiles = set()
    for kind in ("bf16", "int8", "int4"):
        for n, k, around in matmul_tune.SHAPES:
            weight = matmul_tune.weight_like(kind, n, k, "meta")
            config = matmul.vector_config(weight, around == "swiglu")
            row_words = k // {"bf16": 2, "int8": 4, "int4": 8}[kind]
            assert not config["whole"] or config["words"] >= row_words
            assert config["rows"] % 2 == 0 and config["words"] % 4 == 0
            for tokens in (2, 16, 17, 64, 65, 1000):
                tiles.add(matmul.dot_config(weight, tokens, False, False)["tokens"])
            same = [matmul.dot_config(weight, t, False, True) for t in (1, 2, 17, 300)]
            assert all(config == same[0] for config in same)
    assert tiles <= {16, 64, 128}


def test_the_stored_table_is_sound() -> None:
    rows = tune.read(tune.package_file()).get("sm_90", {})
    for kernel in ("matmul.vector", "matmul.dot"):
        for shape, config in rows[kernel].items():
            words = shape.split()
            n, k = (int(part) for part in words[1].split("x"))
            assert words[0] in ("bf16", "int8", "int4", "fp8") and n and k
            if kernel == "matmul.vector":
                per_word = {"bf16": 2, "int8": 4, "fp8": 4, "int4": 8}[words[0]]
                assert not config["whole"] or config["words"] >= k // per_word, shape
            else:
                assert config["tokens"] == int(words[2][1:]), shape


def test_what_may_be_tuned_begins_with_what_is_used() -> None:
    for one in matmul.tunables():
        assert one.kernel in ("matmul.vector", "matmul.dot") and one.bytes_moved > 0
    use = matmul_tune.prepare("int4", 32, 128, "swiglu", 1)(torch.device("cpu"))
    first = use({"rows": 4, "words": 16, "warps": 4, "whole": True, "programs": 1})
    assert first().shape == (1, 16)


@pytest.mark.parametrize("kind,group,zeros", [("int8", 128, False), ("int4", 128, False),
                                              ("int4", 64, True), ("int4", 1000, False)])
def test_unpacking_whole_weights(kind: str, group: int, zeros: bool) -> None:
    weight = made(kind, 5, 300, torch.float32, group, zeros)
    assert not isinstance(weight, torch.Tensor)
    torch.testing.assert_close(matmul_convert.dequantize(weight).double(), exact(weight),
                               rtol=1e-5, atol=1e-6)
