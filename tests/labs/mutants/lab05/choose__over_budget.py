# mutant: infero.quant.sensitivity.choose
# diagnosis: over-budget
# story: ignores the budget
#| exercise: infero.quant.sensitivity.choose
def choose(costs, sizes, options, budget_bits):
    return [options[-1]] * len(sizes)
