# mutant: infero.quant.sensitivity.choose
# diagnosis: greedy-by-gain
# story: always takes the largest gain, whatever its price
#| exercise: infero.quant.sensitivity.choose
def choose(costs, sizes, options, budget_bits):
    at = [0] * len(sizes)
    while True:
        used = sum(s * options[a] for s, a in zip(sizes, at))
        moves = []
        for i, a in enumerate(at):
            for b in range(a + 1, len(options)):
                more = sizes[i] * (options[b] - options[a])
                gain = float(costs[i][a]) - float(costs[i][b])
                if used + more <= budget_bits * sum(sizes) and gain > 0:
                    moves.append((gain, i, b))
        if not moves:
            return [options[a] for a in at]
        _, i, b = max(moves)
        at[i] = b
