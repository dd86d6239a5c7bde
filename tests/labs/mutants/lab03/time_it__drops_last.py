# mutant: infero.bench.time_it
# diagnosis: warmup-kept
# story: slices the wrong end off
#| exercise: infero.bench.time_it
def time_it(run, clock, warmup, repeats):
    samples = []
    for _ in range(warmup + repeats):
        clock.synchronize()
        start = clock.now_s()
        run()
        clock.synchronize()
        samples.append(clock.now_s() - start)
    return samples[:repeats]
