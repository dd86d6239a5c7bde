# mutant: infero.bench.open_loop
# diagnosis: from-start
# story: counts from the start of the run
#| exercise: infero.bench.open_loop
def open_loop(send, due_s, clock):
    start = clock.now_s()
    latencies = []
    for i, due in enumerate(due_s):
        clock.sleep_until(due)
        send(i)
        latencies.append(clock.now_s() - start)
    return latencies
