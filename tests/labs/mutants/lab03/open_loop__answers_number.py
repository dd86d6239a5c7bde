# mutant: infero.bench.open_loop
# story: counts from one
#| exercise: infero.bench.open_loop
def open_loop(send, due_s, clock):
    latencies = []
    for i, due in enumerate(due_s, 1):
        clock.sleep_until(due)
        send(i)
        latencies.append(clock.now_s() - due)
    return latencies
