# mutant: infero.bench.open_loop
# story: lateness taken off
#| exercise: infero.bench.open_loop
def open_loop(send, due_s, clock):
    latencies = []
    for i, due in enumerate(due_s):
        clock.sleep_until(due)
        sent = clock.now_s()
        send(i)
        latencies.append((clock.now_s() - sent) - (sent - due))
    return latencies
