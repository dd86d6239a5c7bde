"""Watts, tokens a second and joules a token: idle, copying, multiplying, decoding and prefilling.

    python -m benchmarks.power [--device cuda|cpu] [--smoke] [--out DIR]

A Llama-3-8B-shaped model with random weights decodes at several batch sizes, each for some seconds
once the power has settled. Energy is the driver's own counter (NVML, read with ctypes, so no
package is needed); power is sampled beside it, and the two are compared. It only reads: clocks and
limits stay as they are. Where there is no NVML, nothing but speed is recorded.
"""

from __future__ import annotations

import argparse
import ctypes
import functools
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from benchmarks.roofline_sweep import angles, cache_views, config_of, graphed, step
from infero import bench, results, roofline
from infero import model as engine

MiB = 2**20


class Nvml:
    """The four readings this program needs from the driver's management library."""

    def __init__(self) -> None:
        self.library = ctypes.CDLL("libnvidia-ml.so.1")
        self._call("nvmlInit_v2")
        self.handle = ctypes.c_void_p()
        try:  # the card CUDA uses, whatever the order of the driver's list
            uuid = f"GPU-{torch.cuda.get_device_properties(0).uuid}".encode()
            self._call("nvmlDeviceGetHandleByUUID", uuid, ctypes.byref(self.handle))
        except (OSError, AttributeError):
            self._call("nvmlDeviceGetHandleByIndex_v2", 0, ctypes.byref(self.handle))

    def _call(self, name: str, *args: object) -> None:
        status = getattr(self.library, name)(*args)
        if status:
            raise OSError(f"{name} failed with NVML status {status}")

    def _read(self, name: str, kind: type, *before: object) -> float:
        value = kind()
        self._call(name, self.handle, *before, ctypes.byref(value))
        return float(value.value)

    def energy_j(self) -> float:
        """Energy since the driver was loaded."""
        return 1e-3 * self._read("nvmlDeviceGetTotalEnergyConsumption", ctypes.c_ulonglong)

    def power_w(self) -> float:
        """Power of the board; a mean over the last second on recent cards."""
        return 1e-3 * self._read("nvmlDeviceGetPowerUsage", ctypes.c_uint)

    def clock_hz(self) -> float:
        """Clock of the multiprocessors now."""
        return 1e6 * self._read("nvmlDeviceGetClockInfo", ctypes.c_uint, 1)

    def temperature_c(self) -> float:
        return self._read("nvmlDeviceGetTemperature", ctypes.c_uint, 0)

    def limit_w(self) -> float:
        """The power limit that the card enforces."""
        return 1e-3 * self._read("nvmlDeviceGetEnforcedPowerLimit", ctypes.c_uint)


def nvml() -> Nvml | None:
    """NVML, or None where it or a reading is missing."""
    try:
        found = Nvml()
        found.energy_j()
        found.power_w()
    except (OSError, AttributeError) as problem:
        print(f"no power readings: {problem}", file=sys.stderr)
        return None
    return found


class Sampler(threading.Thread):
    """Reads power, clock and temperature every `every_s` until stopped."""

    def __init__(self, source: Nvml, every_s: float = 0.05) -> None:
        super().__init__(daemon=True)
        self.source, self.every_s, self.done = source, every_s, threading.Event()
        self.phase = ""
        self.rows: list[list[object]] = []
        self.start_s = time.perf_counter()

    def run(self) -> None:
        while not self.done.wait(self.every_s):
            now = time.perf_counter() - self.start_s
            self.rows.append([round(now, 3), self.phase, round(self.source.power_w(), 1),
                              self.source.clock_hz(), self.source.temperature_c()])


@dataclass
class Phase:
    """What one phase did: how often it ran, for how long, and the energy that took."""

    name: str
    runs: int
    seconds: float
    energy_j: float | None
    sampled_w: float | None

    @property
    def power_w(self) -> float | None:
        return None if self.energy_j is None else self.energy_j / self.seconds


def phase(name: str, run: Callable[[], object] | None, seconds: float, device: str,
          source: Nvml | None, sampler: Sampler | None) -> Phase:
    """Run for `seconds` after a third of that has passed unmeasured; None means do nothing."""
    clock = bench.clock_of(device)
    if sampler:
        sampler.phase = name
    inner = 1
    if run is not None:
        each_s = min(bench.time_it(run, clock, 2, 5))
        inner = max(1, round(0.05 / each_s))  # wait for the GPU about 20 times a second

    def work(for_s: float) -> tuple[int, float]:
        count, start_s = 0, time.perf_counter()
        while (spent_s := time.perf_counter() - start_s) < for_s:
            if run is None:
                time.sleep(0.02)
                continue
            for _ in range(inner):
                run()
            clock.synchronize()
            count += inner
        return count, spent_s

    work(seconds / 3)
    before = source.energy_j() if source else None
    first = len(sampler.rows) if sampler else 0
    count, spent_s = work(seconds)
    energy = source.energy_j() - before if source and before is not None else None
    watts = [float(str(row[2])) for row in sampler.rows[first:]] if sampler else []
    return Phase(name, count, spent_s, energy, sum(watts) / len(watts) if watts else None)


@torch.inference_mode()
def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.power", description=__doc__)
    parser.add_argument("--device", choices=["cuda", "cpu"],
                        default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes: does it run at all?")
    parser.add_argument("--out", help="folder for the JSON instead of results/")
    args = parser.parse_args(argv)
    device, small = args.device, args.smoke or args.device == "cpu"
    torch.manual_seed(0)

    tiny = engine.ModelConfig("llama", 512, 128, 352, 2, 6, 2, 32, max_context=512)
    config = tiny if small else config_of(roofline.MODELS["llama-3-8b"])
    seconds = 0.05 if small else 5.0
    batches = [1, 4] if small else [1, 2, 4, 8, 16, 32, 64, 128, 256]
    context, prompt = (32, 16) if small else (512, 2048)
    side = 128 if small else 8192

    model = engine.random_model(config, dtype=torch.bfloat16, device=device)
    per_token = roofline.kv_bytes_per_token(config) / 2  # elements
    room = max(batches[-1] * context, prompt)
    pool = torch.randn(int(room * per_token), dtype=torch.bfloat16, device=device)
    source = nvml() if device == "cuda" else None
    sampler = Sampler(source) if source else None

    def one_step(batch: int, new: int, at: int) -> Callable[[], object]:
        cache = cache_views(pool, config, batch, at)
        tokens = torch.randint(config.vocab_size, (batch * new,), device=device)
        cos, sin = angles(model, torch.arange(at - new, at, device=device).repeat(batch))
        logits = step(model, cache, tokens, cos, sin, new)
        if not bool(torch.isfinite(logits).all()):
            raise RuntimeError(f"A step of batch {batch} gives logits that are not finite.")
        replay = graphed(lambda: step(model, cache, tokens, cos, sin, new), device)
        return functools.partial(replay, 0)

    with results.record("power", argv=argv, out=args.out, device=device) as r:
        if source:
            r.value("limit", source.limit_w(), unit="W", note="power limit the card enforces")
        if sampler:
            sampler.start()
        measure = functools.partial(phase, seconds=seconds, device=device, source=source,
                                    sampler=sampler)
        rows = []

        def keep(done: Phase, tokens: float) -> None:
            rate = tokens * done.runs / done.seconds
            energy = None if done.energy_j is None else done.energy_j / max(done.runs, 1)
            each = energy / tokens if energy is not None and tokens else None
            rows.append([done.name, int(tokens), rate, done.power_w, each])
            if done.power_w is not None:
                r.value(f"{done.name}_power", done.power_w, unit="W", n=max(done.runs, 1),
                        note=f"energy counter over {done.seconds:.1f} s")
            if done.sampled_w is not None and done.power_w:
                r.value(f"{done.name}_sampled", done.sampled_w, unit="W", n=1,
                        note="mean of the power readings in the same time")
            if tokens:
                r.value(f"{done.name}_rate", rate, unit="token/s", n=done.runs)
            if each is not None:
                r.value(f"{done.name}_energy", each, unit="J/token", n=done.runs)

        keep(measure("idle", None), 0)
        data = torch.randn(side * side * 4, device=device)
        target = torch.empty_like(data)
        keep(measure("copy", lambda: target.copy_(data)), 0)
        for name in ("zeros", "normal"):
            a = torch.zeros(side, side, device=device, dtype=torch.bfloat16)
            if name == "normal":
                a.normal_()
            out = torch.empty_like(a)
            keep(measure(f"matmul_{name}", functools.partial(torch.mm, a, a, out=out)), 0)
        for batch in batches:
            keep(measure(f"decode_{batch}", one_step(batch, 1, context)), batch)
        keep(measure("prefill", one_step(1, prompt, prompt)), prompt)
        r.table("phases", columns=[("phase", ""), ("tokens", ""), ("rate", "token/s"),
                                   ("power", "W"), ("energy", "J/token")], rows=rows)
        if sampler:
            sampler.done.set()
            sampler.join()
            r.table("timeline", columns=[("time", "s"), ("phase", ""), ("power", "W"),
                                         ("clock", "Hz"), ("temperature", "°C")],
                    rows=sampler.rows[::2])


if __name__ == "__main__":
    main(sys.argv[1:])
