# mutant: infero.bench.closed_loop
# diagnosis: thinks-first
# story: thinks before the first request
#| exercise: infero.bench.closed_loop
def closed_loop(server, clients, requests, think_s):
    ready = [think_s] * clients
    latencies = []
    for _ in range(requests):
        sent = heapq.heappop(ready)
        done = server(sent)
        latencies.append(done - sent)
        heapq.heappush(ready, done + think_s)
    return latencies
