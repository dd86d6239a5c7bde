# mutant: infero.bench.time_it
# diagnosis: no-warmup
# story: forgot the warm-up
#| exercise: infero.bench.time_it
def time_it(run, clock, warmup, repeats):
    samples = []
    for _ in range(repeats):
        clock.synchronize()
        start = clock.now_s()
        run()
        clock.synchronize()
        samples.append(clock.now_s() - start)
    return samples
