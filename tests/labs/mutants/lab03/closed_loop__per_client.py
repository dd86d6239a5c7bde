# mutant: infero.bench.closed_loop
# diagnosis: per-client
# story: requests of each client
#| exercise: infero.bench.closed_loop
def closed_loop(server, clients, requests, think_s):
    ready = [0.0] * clients
    latencies = []
    for _ in range(requests * clients):
        sent = heapq.heappop(ready)
        done = server(sent)
        latencies.append(done - sent)
        heapq.heappush(ready, done + think_s)
    return latencies
