# mutant: infero.bench.open_loop
# diagnosis: wrong-length
# story: leaves late requests out
#| exercise: infero.bench.open_loop
def open_loop(send, due_s, clock):
    latencies = []
    for i, due in enumerate(due_s):
        if clock.now_s() > due:
            continue
        clock.sleep_until(due)
        send(i)
        latencies.append(clock.now_s() - due)
    return latencies
