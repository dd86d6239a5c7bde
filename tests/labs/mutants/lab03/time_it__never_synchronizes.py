# mutant: infero.bench.time_it
# diagnosis: no-synchronize
# story: times launches
#| exercise: infero.bench.time_it
def time_it(run, clock, warmup, repeats):
    for _ in range(warmup):
        run()
    samples = []
    for _ in range(repeats):
        start = clock.now_s()
        run()
        samples.append(clock.now_s() - start)
    return samples
