"""Shared fixtures: tiny random models, and the real one where it is installed."""

from __future__ import annotations

import pytest
import torch

from infero.model import Model, ModelConfig, random_model


def tiny_config(**changes: object) -> ModelConfig:
    """A model small enough for a test: 3 layers, 6 query heads on 2 KV heads."""
    fields: dict = dict(architecture="llama", vocab_size=211, hidden_size=48, intermediate_size=80,
                        num_layers=3, num_heads=6, num_kv_heads=2, head_dim=8, max_context=128)
    return ModelConfig(**(fields | changes))


@pytest.fixture
def tiny_model() -> Model:
    return random_model(tiny_config(), seed=1)


@pytest.fixture(scope="session")
def smollm2() -> Model:
    """SmolLM2-135M-Instruct in float32, loaded once a test session."""
    pytest.importorskip("gguf")
    from infero.loading import load

    return load(dtype="float32")


@pytest.fixture(autouse=True)
def _few_threads() -> None:
    torch.set_num_threads(2)
