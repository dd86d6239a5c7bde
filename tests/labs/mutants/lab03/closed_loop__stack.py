# mutant: infero.bench.closed_loop
# story: last client to finish goes next
#| exercise: infero.bench.closed_loop
def closed_loop(server, clients, requests, think_s):
    ready = [0.0] * clients
    latencies = []
    for _ in range(requests):
        sent = ready.pop()
        done = server(sent)
        latencies.append(done - sent)
        ready.append(done + think_s)
    return latencies
