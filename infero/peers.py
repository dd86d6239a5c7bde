"""Other engines on the same weights, for comparison only: `infero bench throughput --compare`.

Nothing of infero depends on them. transformers' model gets views of our weights, so both compute
with the very same numbers and memory holds them once.
"""

from __future__ import annotations

import importlib.util
import time
from typing import TYPE_CHECKING, Any

import torch

from infero.bench_throughput import Job, Run, Seen
from infero.errors import InferoError

if TYPE_CHECKING:
    from infero.model import Model


class PeerMissing(InferoError):
    """The other engine is not installed, or cannot run this model."""


def has_transformers() -> bool:
    return importlib.util.find_spec("transformers") is not None


def transformers_model(model: Model) -> Any:
    """transformers' model of a Llama or Qwen3 over our weights (views, no copy)."""
    if not has_transformers():
        raise PeerMissing("transformers is not installed: pip install transformers.")
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    c = model.config
    kinds = {"llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM),
             "qwen3": (transformers.Qwen3Config, transformers.Qwen3ForCausalLM)}
    biased = any(x is not None for layer in model.layers[:1]
                 for x in (layer.qkv_bias, layer.o_bias, layer.gate_up_bias, layer.down_bias))
    if c.architecture not in kinds or biased or c.rope_scaling is not None or c.sliding_window:
        raise PeerMissing(f"The comparison knows plain Llama and Qwen3 models, not this "
                          f"{c.architecture} model; leave --compare away.")
    make_config, make = kinds[c.architecture]
    with torch.device("meta"):
        peer = make(make_config(
            vocab_size=c.vocab_size, hidden_size=c.hidden_size, num_hidden_layers=c.num_layers,
            intermediate_size=c.intermediate_size, num_attention_heads=c.num_heads,
            num_key_value_heads=c.num_kv_heads, head_dim=c.head_dim, rms_norm_eps=c.norm_eps,
            max_position_embeddings=c.max_context, tie_word_embeddings=c.tie_embeddings,
            dtype=model.dtype, rope_parameters=dict(rope_type="default", rope_theta=c.rope_theta),
            bos_token_id=None, eos_token_id=None, pad_token_id=0))
    peer.load_state_dict(_state(model), assign=True)
    with torch.device(model.device):
        peer.model.rotary_emb = type(peer.model.rotary_emb)(peer.config)  # its table was "meta" too
    peer.generation_config.pad_token_id = 0
    return peer.eval()


def _state(model: Model) -> dict[str, torch.Tensor]:
    """Our weights under transformers' names."""
    c = model.config
    state = {"model.embed_tokens.weight": model.embedding, "lm_head.weight": model.head,
             "model.norm.weight": model.final_norm}
    sizes = [c.num_heads * c.head_dim, c.num_kv_heads * c.head_dim, c.num_kv_heads * c.head_dim]
    for i, layer in enumerate(model.layers):
        q, k, v = layer.qkv.split(sizes)
        gate, up = layer.gate_up.chunk(2)
        named = {"self_attn.q_proj": q, "self_attn.k_proj": k, "self_attn.v_proj": v,
                 "self_attn.o_proj": layer.o, "mlp.gate_proj": gate, "mlp.up_proj": up,
                 "mlp.down_proj": layer.down, "input_layernorm": layer.input_norm,
                 "post_attention_layernorm": layer.post_norm}
        if layer.q_norm is not None and layer.k_norm is not None:
            named |= {"self_attn.q_norm": layer.q_norm, "self_attn.k_norm": layer.k_norm}
        state |= {f"model.layers.{i}.{name}.weight": weight for name, weight in named.items()}
    return state


@torch.inference_mode()
def transformers_static(peer: Any, job: Job, slots: int, *, seen: Seen | None = None) -> Run:
    """Groups of `slots` prompts, padded on the left, each until its longest output is done.

    `peer` is what `transformers_model` gave. Only the tokens that were asked for count.
    """
    run = Run("transformers", slots)
    device = peer.device
    start_s = time.perf_counter()
    try:
        for first in range(0, len(job.prompts), slots):
            prompts = job.prompts[first : first + slots]
            lengths = job.lengths[first : first + slots]
            widest = max(map(len, prompts))
            ids = torch.tensor([[0] * (widest - len(p)) + p for p in prompts], device=device)
            mask = torch.tensor([[0] * (widest - len(p)) + [1] * len(p) for p in prompts],
                                device=device)
            draw: dict[str, Any] = (dict(do_sample=True, temperature=job.temperature, top_k=0)
                                    if job.temperature else dict(do_sample=False))
            out = peer.generate(ids, attention_mask=mask, max_new_tokens=max(lengths),
                                min_new_tokens=max(lengths), **draw)
            made = out.shape[1] - widest
            run.requests += len(prompts)
            run.tokens += sum(min(made, n) for n in lengths)
            run.steps += made
            run.computed += widest * len(prompts) + (made - 1) * len(prompts)
            run.prompt_tokens += sum(map(len, prompts))
            if seen is not None:
                seen(run.requests, run.tokens)
    except KeyboardInterrupt:
        run.stopped = "Ctrl-C"
    run.duration_s = time.perf_counter() - start_s
    return run
