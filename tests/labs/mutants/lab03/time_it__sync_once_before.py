# mutant: infero.bench.time_it
# story: waits before the first repeat only, then not after
#| exercise: infero.bench.time_it
def time_it(run, clock, warmup, repeats):
    for _ in range(warmup):
        run()
    clock.synchronize()
    samples = []
    for _ in range(repeats):
        start = clock.now_s()
        run()
        samples.append(clock.now_s() - start)
    clock.synchronize()
    return samples
