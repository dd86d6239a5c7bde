# mutant: infero.bench.open_loop
# diagnosis: coordinated-omission
# story: counts from when it was sent
#| exercise: infero.bench.open_loop
def open_loop(send, due_s, clock):
    latencies = []
    for i, due in enumerate(due_s):
        clock.sleep_until(due)
        sent = clock.now_s()
        send(i)
        latencies.append(clock.now_s() - sent)
    return latencies
