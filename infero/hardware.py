"""What a device can do: datasheet limits, and the limits measured on the device at hand.

Chapter 2 explains which of these numbers matter and why. Two kinds of numbers live here and
are never mixed: `DEVICES` holds what manufacturers publish (dense rates, never the doubled
"with sparsity" ones), each row with its source; `measured` and `measure_cpu` return a copy of
such a row with bandwidth and matmul rate as this project measured them.

Only `measure_cpu` and `detect` need torch, and they import it themselves.
"""

from __future__ import annotations

import functools
import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from infero.errors import ParameterError

GB = 1e9
TFLOP = 1e12


@dataclass(frozen=True)
class Device:
    """Limits of one accelerator (one chip, one package) or of one CPU."""

    slug: str
    name: str
    vendor: str
    kind: str  # "gpu" | "tpu" | "cpu"
    memory_bytes: float
    bandwidth_bytes_per_s: float
    # Dense multiply-add rates by number format, in flop/s (int8: operations/s). A format the
    # matrix units do not have is absent.
    peak_flops_per_s: dict[str, float] = field(hash=False)
    l2_bytes: float | None = None  # last cache that all cores share
    link: str = ""
    link_bytes_per_s: float | None = None  # to peer chips, both directions added
    tdp_w: float | None = None
    date: str = ""  # year of the datasheet or of the measurement
    source: str = ""
    url: str = ""
    note: str = ""
    evidence: str = "datasheet"  # or "measured"

    def peak(self, dtype: str) -> float:
        """Dense peak in flop/s for a format, or ParameterError naming the formats there are."""
        if dtype not in self.peak_flops_per_s:
            known = ", ".join(self.peak_flops_per_s)
            raise ParameterError(
                f"{self.name} has no {dtype!r} rate; it has {known}. Choose one of those."
            )
        return self.peak_flops_per_s[dtype]

    def ridge(self, dtype: str = "bf16") -> float:
        """Arithmetic intensity in flop/byte at which this device turns compute-bound."""
        return self.peak(dtype) / self.bandwidth_bytes_per_s


def _rates(bf16: float | None, fp8: float | None, int8: float | None, fp32: float,
           fp16: float | None = None) -> dict[str, float]:
    """Rates in TFLOP/s to a dictionary in flop/s; fp16 equals bf16 where only that is given."""
    table = {"bf16": bf16, "fp16": fp16 or bf16, "fp8": fp8, "int8": int8, "fp32": fp32}
    return {name: rate * TFLOP for name, rate in table.items() if rate is not None}


# fp32 is the rate of the ordinary (non-tensor) units, except on TPUs and CPUs, whose makers
# publish no such figure. Capacities are as printed: makers write GB for 10^9 and 2^30 alike.
_TABLE = (
    Device("t4", "NVIDIA T4", "NVIDIA", "gpu", 16 * GB, 320 * GB,
           _rates(None, None, 130, 8.1, fp16=65), l2_bytes=4 * 2**20,
           link="PCIe 3.0 x16", link_bytes_per_s=32 * GB, tdp_w=70, date="2018",
           source="NVIDIA T4 datasheet; L2: NVIDIA Turing architecture whitepaper",
           url="https://www.nvidia.com/en-us/data-center/tesla-t4/",
           note="fp16 tensor cores only: bf16 is emulated"),
    Device("l4", "NVIDIA L4", "NVIDIA", "gpu", 24 * GB, 300 * GB,
           _rates(121, 242.5, 242.5, 30.3), l2_bytes=48 * 2**20,
           link="PCIe 4.0 x16", link_bytes_per_s=64 * GB, tdp_w=72, date="2023",
           source="NVIDIA L4 datasheet (halved: it prints sparse rates); L2: Ada whitepaper",
           url="https://www.nvidia.com/en-us/data-center/l4/"),
    Device("a10", "NVIDIA A10", "NVIDIA", "gpu", 24 * GB, 600 * GB,
           _rates(125, None, 250, 31.2), l2_bytes=6 * 2**20,
           link="PCIe 4.0 x16", link_bytes_per_s=64 * GB, tdp_w=150, date="2021",
           source="NVIDIA A10 datasheet; L2: NVIDIA Ampere GA102 whitepaper",
           url="https://www.nvidia.com/en-us/data-center/products/a10-gpu/"),
    Device("rtx4090", "GeForce RTX 4090", "NVIDIA", "gpu", 24 * GB, 1008 * GB,
           _rates(165.2, 330.3, 660.6, 82.6), l2_bytes=72 * 2**20,
           link="PCIe 4.0 x16", link_bytes_per_s=64 * GB, tdp_w=450, date="2022",
           source="NVIDIA Ada GPU architecture whitepaper, appendix A (fp32 accumulation)",
           url="https://images.nvidia.com/aem-dam/Solutions/geforce/ada/"
               "nvidia-ada-gpu-architecture.pdf"),
    Device("a100-40", "NVIDIA A100 40GB", "NVIDIA", "gpu", 40 * GB, 1555 * GB,
           _rates(312, None, 624, 19.5), l2_bytes=40 * 2**20,
           link="NVLink 3", link_bytes_per_s=600 * GB, tdp_w=400, date="2020",
           source="NVIDIA A100 datasheet (SXM4); NVIDIA Ampere architecture whitepaper",
           url="https://images.nvidia.com/aem-dam/en-zz/Solutions/data-center/"
               "nvidia-ampere-architecture-whitepaper.pdf"),
    Device("a100-80", "NVIDIA A100 80GB", "NVIDIA", "gpu", 80 * GB, 2039 * GB,
           _rates(312, None, 624, 19.5), l2_bytes=40 * 2**20,
           link="NVLink 3", link_bytes_per_s=600 * GB, tdp_w=400, date="2021",
           source="NVIDIA A100 datasheet (SXM4)",
           url="https://www.nvidia.com/content/dam/en-zz/Solutions/Data-Center/a100/pdf/"
               "nvidia-a100-datasheet-us-nvidia-1758950-r4-web.pdf"),
    Device("h100", "NVIDIA H100 SXM", "NVIDIA", "gpu", 80 * GB, 3350 * GB,
           _rates(989.4, 1978.9, 1978.9, 66.9), l2_bytes=50 * 2**20,
           link="NVLink 4", link_bytes_per_s=900 * GB, tdp_w=700, date="2023",
           source="NVIDIA H100 Tensor Core GPU architecture whitepaper, v1.04; datasheet",
           url="https://resources.nvidia.com/en-us-tensor-core/gtc22-whitepaper-hopper"),
    Device("h200", "NVIDIA H200 SXM", "NVIDIA", "gpu", 141 * GB, 4800 * GB,
           _rates(989.4, 1978.9, 1978.9, 66.9), l2_bytes=50 * 2**20,
           link="NVLink 4", link_bytes_per_s=900 * GB, tdp_w=700, date="2023",
           source="NVIDIA H200 datasheet (halved: it prints sparse rates)",
           url="https://www.nvidia.com/en-us/data-center/h200/"),
    Device("b200", "NVIDIA B200", "NVIDIA", "gpu", 180 * GB, 7700 * GB,
           _rates(2250, 4500, 4500, 75), l2_bytes=126 * 2**20,
           link="NVLink 5", link_bytes_per_s=1800 * GB, tdp_w=1000, date="2025",
           source="NVIDIA HGX B200 datasheet (halved); L2: Blackwell tuning guide",
           url="https://www.nvidia.com/en-us/data-center/hgx/",
           note="the DGX B200 sheet rounds eight of them up to 64 TB/s"),
    Device("mi300x", "AMD Instinct MI300X", "AMD", "gpu", 192 * GB, 5300 * GB,
           _rates(1307.4, 2614.9, 2614.9, 163.4), l2_bytes=256 * 2**20,
           link="Infinity Fabric", link_bytes_per_s=896 * GB, tdp_w=750, date="2023",
           source="AMD Instinct MI300X datasheet",
           url="https://www.amd.com/en/products/accelerators/instinct/mi300/mi300x.html",
           note="the shared cache is the 256 MB Infinity Cache; each XCD has 4 MB of L2"),
    Device("tpu-v5e", "Google TPU v5e", "Google", "tpu", 16 * GB, 819 * GB,
           {"bf16": 197 * TFLOP, "int8": 393 * TFLOP},
           link="ICI, 2D torus", link_bytes_per_s=400 * GB, date="2023",
           source="Google Cloud documentation, TPU v5e",
           url="https://cloud.google.com/tpu/docs/v5e"),
    Device("tpu-v5p", "Google TPU v5p", "Google", "tpu", 95 * GB, 2765 * GB,
           {"bf16": 459 * TFLOP},
           link="ICI, 3D torus", link_bytes_per_s=1200 * GB, date="2023",
           source="Google Cloud documentation, TPU v5p",
           url="https://cloud.google.com/tpu/docs/v5p"),
    Device("tpu-v6e", "Google TPU v6e", "Google", "tpu", 32 * GB, 1638 * GB,
           {"bf16": 918 * TFLOP, "int8": 1836 * TFLOP},
           link="ICI, 2D torus", link_bytes_per_s=800 * GB, date="2024",
           source="Google Cloud documentation, TPU v6e",
           url="https://cloud.google.com/tpu/docs/v6e"),
)
DEVICES: dict[str, Device] = {device.slug: device for device in _TABLE}


def device(slug: str) -> Device:
    """The datasheet row of a device, by slug (`h100`) or name; ParameterError lists them."""
    key = slug.lower().strip().removesuffix("gb")
    for row in _TABLE:
        if key in (row.slug, row.name.lower().removesuffix("gb")):
            return row
    raise ParameterError(f"No device {slug!r}; known devices: {', '.join(DEVICES)}, or cpu.")


def measured(slug: str) -> Device:
    """The device with the limits that results/ recorded for it, or its datasheet row.

    Bandwidth becomes the measured read limit, bf16 and fp8 the measured matmul rates. A format
    that was not measured keeps its datasheet rate; `evidence` says which kind of row came back.
    """
    from infero import results

    row = device(slug)

    def recorded(name: str) -> Any:
        try:
            return results.get(f"{row.slug}/limits/{name}")
        except (results.ResultMissing, FileNotFoundError):
            return None

    read, bf16, fp8 = (recorded(n) for n in ("read_bandwidth", "matmul_bf16", "matmul_fp8"))
    if read is None or bf16 is None:
        return row
    rates = dict(row.peak_flops_per_s, bf16=float(bf16.value), fp16=float(bf16.value))
    if fp8 is not None:
        rates["fp8"] = float(fp8.value)
    return replace(
        row, bandwidth_bytes_per_s=float(read.value), peak_flops_per_s=rates,
        evidence="measured", date=str(read.date)[:10],
        source=f"results/{row.slug}/limits.json", url="",
    )


def recorded_gpu() -> Device:
    """The GPU that the book's `gpu/...` results come from, or the H100's datasheet row."""
    from infero import results

    try:
        slug = results.provenance("gpu/limits/read_bandwidth")["device"]["slug"]
    except (results.ResultMissing, FileNotFoundError):
        return DEVICES["h100"]
    return measured(slug)


# ---------------------------------------------------------------- the machine at hand


def timings_s(run: Callable[[], object], budget_s: float, repeats: int = 50) -> list[float]:
    """Seconds of each call of `run`: one warm-up, then until the budget or repeats run out."""
    run()
    samples: list[float] = []
    began = time.perf_counter()
    while len(samples) < 3 or (
        len(samples) < repeats and time.perf_counter() - began < budget_s
    ):
        start = time.perf_counter()
        run()
        samples.append(time.perf_counter() - start)
    return samples


def cpu_name() -> str:
    """The processor's name as the system gives it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as info:
            for line in info:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine() or "CPU"


def physical_memory_bytes() -> float:
    """Physical memory of this machine in bytes, 0 where the system does not say."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return 0.0


def _limits(where: str, size: int, budget_s: float) -> tuple[float, dict[str, float]]:
    """Read bandwidth in byte/s and matmul rates in flop/s of `cpu` or `cuda`, measured now.

    Read: a float32 sum over 256 MB, more than any cache holds. Matmul: a size x size product of
    random numbers in float32 and bfloat16. The best of several runs counts, because a limit is
    what the machine can do when nothing disturbs it; each run waits for the device to finish.
    """
    import torch

    def finish() -> None:
        if where == "cuda":
            torch.cuda.synchronize()

    def rate(work: float, run: Callable[[], object], share: float) -> float:
        def timed() -> None:
            run()
            finish()

        return work / min(timings_s(timed, budget_s * share))

    x = torch.ones(2**26, dtype=torch.float32, device=where)
    read = rate(x.numel() * 4, x.sum, 0.3)
    rates = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        a = torch.randn(size, size, device=where).to(dtype)
        b = torch.randn(size, size, device=where).to(dtype)
        rates[name] = rate(2 * size**3, functools.partial(torch.mm, a, b), 0.25)
    return read, rates


@functools.lru_cache(maxsize=1)
def measure_cpu(budget_s: float = 2.0) -> Device:
    """This machine's processor, measured now in about `budget_s` seconds, once per process."""
    import torch

    read, rates = _limits("cpu", 1024, budget_s)
    return Device(
        "cpu", f"{cpu_name()}, {torch.get_num_threads()} threads", "", "cpu",
        physical_memory_bytes(), read, rates, date=time.strftime("%Y-%m-%d"),
        source="measured just now by infero.hardware.measure_cpu", evidence="measured",
    )


@functools.lru_cache(maxsize=1)
def measure_gpu(budget_s: float = 2.0) -> Device:
    """The first CUDA (or ROCm) device, measured now: for cards that are not in the table."""
    import torch

    read, rates = _limits("cuda", 4096, budget_s)
    facts = torch.cuda.get_device_properties(0)
    return Device(
        "gpu", facts.name, "", "gpu", float(facts.total_memory), read, rates,
        date=time.strftime("%Y-%m-%d"),
        source="measured just now by infero.hardware.measure_gpu", evidence="measured",
    )


def match(name: str) -> Device | None:
    """The row for a GPU by the name its driver gives (`NVIDIA H100 80GB HBM3`), or None.

    Variants with other limits than the row's (PCIe, NVL, laptop) are no match.
    """
    words = name.lower().replace("-", " ").split()
    if {"pcie", "nvl", "laptop", "max"} & set(words):
        return None
    if "a100" in words:
        return DEVICES["a100-80" if "80gb" in words else "a100-40"]
    if "rtx" in words and "4090" in words:
        return DEVICES["rtx4090"]
    for key in ("h200", "h100", "b200", "mi300x", "a10", "l4", "t4"):
        if key in words:
            return DEVICES[key]
    return None


def detect() -> Device:
    """The device that infero would run on here: the GPU if torch sees one, else the CPU.

    A GPU in the table comes with the limits that results/ recorded for it or its datasheet;
    any other GPU, and the CPU, are measured now.
    """
    import torch

    if torch.cuda.is_available():
        row = match(torch.cuda.get_device_name(0))
        return measured(row.slug) if row is not None else measure_gpu()
    return measure_cpu()


def resolve(spec: str | Device | None) -> Device:
    """A Device from what a person types: `auto` (or None), `cpu`, a slug, `h100:datasheet`.

    `gpu` is the card that the book's results come from.
    """
    if isinstance(spec, Device):
        return spec
    if spec is None or spec == "auto":
        return detect()
    if spec == "cpu":
        return measure_cpu()
    if spec == "gpu":
        return recorded_gpu()
    if spec.endswith(":datasheet"):
        return device(spec.removesuffix(":datasheet"))
    return measured(spec)


def as_json() -> dict[str, Any]:
    """The table as plain data, for the roofline explorer and other readers outside Python."""
    return {"devices": [asdict(row) for row in _TABLE]}
