# mutant: infero.bench.time_it
# diagnosis: milliseconds
# story: returns milliseconds
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
        samples.append(1e3 * (clock.now_s() - start))
    return samples
