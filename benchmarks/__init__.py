"""Programs that measure. Each writes results/DEVICE/NAME.json, and nothing else writes there.

Those that need no GPU are named here; all others are steps of `make gpu` (benchmarks/gpu.py).
"""

CPU_ONLY = ("batching", "chapter04", "cpu_decode", "fragmentation", "generate_cpu",
            "instructions", "labs", "scheduler_overhead", "scheduling", "scheduling_cpu",
            "throughput_cpu")
