# mutant: infero.bench.open_loop
# diagnosis: waiting-only
# story: reads the clock before sending
#| exercise: infero.bench.open_loop
def open_loop(send, due_s, clock):
    latencies = []
    for i, due in enumerate(due_s):
        clock.sleep_until(due)
        latencies.append(clock.now_s() - due)
        send(i)
    return latencies
