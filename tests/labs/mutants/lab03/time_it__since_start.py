# mutant: infero.bench.time_it
# diagnosis: since-start
# story: never resets the start
#| exercise: infero.bench.time_it
def time_it(run, clock, warmup, repeats):
    for _ in range(warmup):
        run()
    samples = []
    clock.synchronize()
    start = clock.now_s()
    for _ in range(repeats):
        run()
        clock.synchronize()
        samples.append(clock.now_s() - start)
    return samples
