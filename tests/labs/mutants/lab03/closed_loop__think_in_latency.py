# mutant: infero.bench.closed_loop
# story: thinking is part of the latency
#| exercise: infero.bench.closed_loop
def closed_loop(server, clients, requests, think_s):
    ready = [0.0] * clients
    latencies = []
    for _ in range(requests):
        sent = heapq.heappop(ready)
        done = server(sent) + think_s
        latencies.append(done - sent)
        heapq.heappush(ready, done)
    return latencies
