# mutant: infero.bench.time_it
# diagnosis: averaged
# story: times all repeats together
#| exercise: infero.bench.time_it
def time_it(run, clock, warmup, repeats):
    for _ in range(warmup):
        run()
    clock.synchronize()
    start = clock.now_s()
    for _ in range(repeats):
        run()
    clock.synchronize()
    return [(clock.now_s() - start) / repeats] * repeats
