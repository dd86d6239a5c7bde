# mutant: infero.bench.time_it
# story: one warm-up call whatever was asked
#| exercise: infero.bench.time_it
def time_it(run, clock, warmup, repeats):
    run()
    samples = []
    for _ in range(repeats):
        clock.synchronize()
        start = clock.now_s()
        run()
        clock.synchronize()
        samples.append(clock.now_s() - start)
    return samples
