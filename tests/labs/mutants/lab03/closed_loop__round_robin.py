# mutant: infero.bench.closed_loop
# diagnosis: out-of-order
# story: clients in a fixed order
#| exercise: infero.bench.closed_loop
def closed_loop(server, clients, requests, think_s):
    ready = [0.0] * clients
    latencies = []
    for i in range(requests):
        sent = ready[i % clients]
        done = server(sent)
        latencies.append(done - sent)
        ready[i % clients] = done + think_s
    return latencies
