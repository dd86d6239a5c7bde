# mutant: infero.bench.time_it
# diagnosis: answer-key
# story: calls the finished function
#| exercise: infero.bench.time_it
def time_it(run, clock, warmup, repeats):
    from infero import bench
    return bench.time_it(run, clock, warmup, repeats)
