# mutant: infero.bench.closed_loop
# story: nobody waits
#| exercise: infero.bench.closed_loop
def closed_loop(server, clients, requests, think_s):
    return [server(0.0) for _ in range(requests)]
