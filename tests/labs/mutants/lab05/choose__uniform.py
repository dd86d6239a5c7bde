# mutant: infero.quant.sensitivity.choose
# diagnosis: uniform
# story: gives everyone the same
#| exercise: infero.quant.sensitivity.choose
def choose(costs, sizes, options, budget_bits):
    return [max(b for b in options if b <= budget_bits)] * len(sizes)
