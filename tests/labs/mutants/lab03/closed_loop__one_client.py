# mutant: infero.bench.closed_loop
# story: one request at a time
#| exercise: infero.bench.closed_loop
def closed_loop(server, clients, requests, think_s):
    now, latencies = 0.0, []
    for _ in range(requests):
        done = server(now)
        latencies.append(done - now)
        now = done + think_s
    return latencies
