# mutant: infero.bench.time_it
# diagnosis: unfinished
# story: left as it was
#| exercise: infero.bench.time_it
def time_it(run, clock, warmup, repeats):
    raise NotImplementedError("Lab 3, exercise 1")
