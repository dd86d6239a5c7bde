# mutant: infero.bench.closed_loop
# story: the client that is ready last
#| exercise: infero.bench.closed_loop
def closed_loop(server, clients, requests, think_s):
    ready = [0.0] * clients
    latencies = []
    for _ in range(requests):
        sent = max(ready)
        ready.remove(sent)
        done = server(sent)
        latencies.append(done - sent)
        ready.append(done + think_s)
    return latencies
