# mutant: infero.bench.time_it
# diagnosis: no-synchronize-before
# story: earlier work is charged to the first sample
#| exercise: infero.bench.time_it
def time_it(run, clock, warmup, repeats):
    for _ in range(warmup):
        run()
    samples = []
    for _ in range(repeats):
        start = clock.now_s()
        run()
        clock.synchronize()
        samples.append(clock.now_s() - start)
    return samples
