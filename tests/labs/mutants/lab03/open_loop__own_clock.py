# mutant: infero.bench.open_loop
# diagnosis: own-clock
# story: time.sleep and perf_counter
#| exercise: infero.bench.open_loop
def open_loop(send, due_s, clock):
    latencies = []
    for i, due in enumerate(due_s):
        time.sleep(0)
        start = time.perf_counter()
        send(i)
        latencies.append(time.perf_counter() - start)
    return latencies
