# mutant: infero.bench.time_it
# story: reads the start, then waits
#| exercise: infero.bench.time_it
def time_it(run, clock, warmup, repeats):
    for _ in range(warmup):
        run()
    samples = []
    for _ in range(repeats):
        start = clock.now_s()
        clock.synchronize()
        run()
        clock.synchronize()
        samples.append(clock.now_s() - start)
    return samples
