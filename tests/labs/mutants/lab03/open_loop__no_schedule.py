# mutant: infero.bench.open_loop
# diagnosis: no-schedule
# story: sends as fast as it can
#| exercise: infero.bench.open_loop
def open_loop(send, due_s, clock):
    latencies = []
    for i, due in enumerate(due_s):
        send(i)
        latencies.append(clock.now_s() - due)
    return latencies
