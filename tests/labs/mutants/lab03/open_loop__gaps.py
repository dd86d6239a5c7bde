# mutant: infero.bench.open_loop
# diagnosis: gaps-after-answers
# story: sleeps gaps after answers
#| exercise: infero.bench.open_loop
def open_loop(send, due_s, clock):
    latencies = []
    before = clock.now_s()
    for i, due in enumerate(due_s):
        clock.sleep_until(clock.now_s() + due - before)
        before = due
        send(i)
        latencies.append(clock.now_s() - due)
    return latencies
