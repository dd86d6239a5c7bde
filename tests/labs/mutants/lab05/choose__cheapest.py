# mutant: infero.quant.sensitivity.choose
# diagnosis: nothing-spent
# story: never upgrades
#| exercise: infero.quant.sensitivity.choose
def choose(costs, sizes, options, budget_bits):
    return [options[0]] * len(sizes)
