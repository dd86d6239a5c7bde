# mutant: infero.bench.closed_loop
# diagnosis: answer-times
# story: returns the moments of the answers
#| exercise: infero.bench.closed_loop
def closed_loop(server, clients, requests, think_s):
    ready = [0.0] * clients
    latencies = []
    for _ in range(requests):
        sent = heapq.heappop(ready)
        done = server(sent)
        latencies.append(done)
        heapq.heappush(ready, done + think_s)
    return latencies
