# mutant: infero.bench.time_it
# diagnosis: own-clock
# story: uses time.perf_counter
#| exercise: infero.bench.time_it
def time_it(run, clock, warmup, repeats):
    for _ in range(warmup):
        run()
    samples = []
    for _ in range(repeats):
        clock.synchronize()
        start = time.perf_counter()
        run()
        clock.synchronize()
        samples.append(time.perf_counter() - start)
    return samples
