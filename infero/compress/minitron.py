"""Prune, then distil: a small model that starts from a large one's weights.

    python -m infero.compress.minitron --smoke          # a minute on a CPU, a random model

A student of random weights must learn first what the teacher's weights know already. Minitron
(Muralidharan et al., arXiv:2407.14679) cuts layers and neurons out of the teacher by importance and
lets distillation mend the wounds, which takes a small fraction of the tokens. Chapter 6 explains
it. `infero.compress.structured` scores and cuts, `infero.compress.distill` mends.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from infero.compress import distill, structured
from infero.errors import ConfigError
from infero.model import Layer, Model, ModelConfig, random_model
from infero.quant import calibration


def ends(layers: int, keep: int) -> list[int]:
    """Indexes of the `keep` layers at both ends of a model: the first ones, then the last.

    The middle layers of a deep model change the residual stream least (arXiv:2403.03853), and only
    the last ones write what the head reads. The first end gets the odd one.
    """
    if not 1 <= keep <= layers:
        raise ConfigError(f"{keep} layers were asked for; the model has {layers}: keep 1 to that.")
    return [*range(-(-keep // 2)), *range(layers - keep // 2, layers)]


def prune(model: Model, layers: Sequence[int], intermediate: int | None = None,
          ids: Tensor | None = None) -> Model:
    """The model with only these layers, each with its `intermediate` most important neurons.

    ids: [n, length], sequences on which neurons are scored, in the whole model: each at the place
    where it learned what it does. Needed only where neurons go. Weights that stay whole are shared.
    """
    kept, full = sorted(set(layers)), model.config.intermediate_size
    small = structured.keep_layers(model, kept)
    if intermediate is None or intermediate == full:
        return small
    if not 1 <= intermediate < full:
        raise ConfigError(f"{intermediate} neurons were asked for; a layer has {full}: keep 1 to "
                          "that.")
    if ids is None:
        raise ConfigError("Neurons are scored on text: give ids [n, length].")
    hidden, cut = calibration.embed(model, ids), list[Layer]()
    for index in range(kept[-1] + 1):
        layer = model.layers[index]
        if index in kept:
            stats = calibration.layer_stats(model, index, hidden, names=("down",))["down"]
            scores = structured.neuron_importance(layer.down, stats.mean_square)
            best = scores.topk(intermediate).indices.sort().values
            cut.append(structured.keep_neurons(layer, best))
        if index < kept[-1]:
            hidden = calibration.advance(model, index, hidden)
    return replace(small, layers=cut, config=replace(small.config, intermediate_size=intermediate))


def folded(model: Model) -> Model:
    """The same function with the weights of the layers' norms moved into the matrices behind them.

    SmolLM2's norms scale by a few hundredths and its matrices are large in turn. An optimizer whose
    steps have one size for all weights then moves the norms too fast and the matrices too slowly.
    """
    layers = [replace(layer, qkv=layer.qkv * layer.input_norm,
                      gate_up=layer.gate_up * layer.post_norm,
                      input_norm=torch.ones_like(layer.input_norm),
                      post_norm=torch.ones_like(layer.post_norm)) for layer in model.layers]
    return replace(model, layers=layers)


def reborn(model: Model, seed: int = 0) -> Model:
    """The same shape with random layers, to see what the teacher's weights were worth."""
    fresh = random_model(model.config, seed=seed, dtype=torch.float32, device=model.device)
    for layer in fresh.layers:
        layer.input_norm, layer.post_norm = (torch.ones_like(layer.input_norm) for _ in range(2))
        layer.o, layer.down = layer.o / 2, layer.down / 2
    return replace(model, layers=fresh.layers)


def prune_and_distil(teacher: Model, layers: Sequence[int], intermediate: int | None,
                     ids: Tensor, recipe: distill.Recipe | None = None, *,
                     batch: int = 8, steps: int | None = 100, seconds: float | None = None,
                     seen: Callable[[int, int, float], Any] | None = None) -> Model:
    """A student of these layers and so many neurons, mended on sequences ids [n, length]."""
    student = distill.trainable(folded(prune(teacher, layers, intermediate, ids)))
    examples = [distill.Example(part) for part in ids.split(batch)]
    distill.fit(student, teacher, distill.shuffled(examples), recipe or distill.Recipe(),
                steps=steps, seconds=seconds, seen=seen)
    return frozen(student, teacher.dtype)


def frozen(student: Model, dtype: torch.dtype) -> Model:
    """The trained model in the dtype of the engine, without gradients."""
    layers = [replace(layer, **{name: value.detach().to(dtype)
                                for name, value in vars(layer).items() if value is not None})
              for layer in student.layers]
    return replace(student, layers=layers, final_norm=student.final_norm.detach().to(dtype))


# ---------------------------------------------------------------- a demonstration


def divergence(student: Model, teacher: Model, ids: Tensor) -> float:
    """Mean KL(teacher || student) in nats a token on sequences ids [n, length]."""
    with torch.no_grad():
        found = list[Tensor]()
        for part in ids.split(8):
            s, t = (distill.logits(m, distill.states(m, part).flatten(0, 1))
                    for m in (student, teacher))
            found.append(distill.kd_loss(s, t) * len(part))
        return float(torch.stack(found).sum() / len(ids))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m infero.compress.minitron",
                                     description=__doc__.split("\n")[0])
    parser.add_argument("--model", help="what infero.load takes (default: SmolLM2)")
    parser.add_argument("--layers", type=int, default=2, help="how many stay")
    parser.add_argument("--intermediate", type=int, help="neurons of a layer that stay")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch", type=int, default=8, help="sequences a step")
    parser.add_argument("--length", type=int, default=128, help="tokens of a sequence")
    parser.add_argument("--smoke", action="store_true", help="a small random model")
    args = parser.parse_args(argv)
    if args.smoke:
        config = ModelConfig("llama", 64, 32, 96, 6, 4, 2, 8, 256, tie_embeddings=True)
        teacher = random_model(config, seed=1)
        generator = torch.Generator().manual_seed(2)
        ids = torch.randint(0, 64, (64, 32), generator=generator)
        layers, intermediate = 2, 48
    else:
        from infero import evaluate, load

        teacher = load(args.model, dtype="float32")
        layers, intermediate = args.layers, args.intermediate
        ids = calibration.sequences(evaluate.token_ids(teacher.tokenizer, "calibration"),
                                    args.length, 64)
    held, ids = ids[:8], ids[8:]
    kept = ends(teacher.config.num_layers, layers)
    pruned = prune(teacher, kept, intermediate, ids)
    print(f"layers {kept}, {pruned.config.intermediate_size} neurons each; KL to the teacher "
          f"{divergence(pruned, teacher, held):.3f} nats a token", flush=True)
    student = prune_and_distil(
        teacher, kept, intermediate, ids, batch=args.batch, steps=args.steps,
        seen=lambda steps, tokens, loss: print(f"  {steps:>4} steps, loss {loss:.3f}", flush=True))
    print(f"after {args.steps} steps: {divergence(student, teacher, held):.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
