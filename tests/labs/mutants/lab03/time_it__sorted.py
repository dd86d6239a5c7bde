# mutant: infero.bench.time_it
# diagnosis: sorted
# story: sorts the samples
#| exercise: infero.bench.time_it
def time_it(run, clock, warmup, repeats):
    for _ in range(warmup):
        run()
    samples = []
    for _ in range(repeats):
        clock.synchronize()
        start = clock.now_s()
        run()
        clock.synchronize()
        samples.append(clock.now_s() - start)
    return sorted(samples)
