# mutant: infero.quant.sensitivity.choose
# diagnosis: nothing-spent
# story: keeps the dearest plan
#| exercise: infero.quant.sensitivity.choose
def choose(costs, sizes, options, budget_bits):
    import math
    unit = math.gcd(*sizes)
    room = int(budget_bits * sum(sizes) // unit)
    table = {0: (0.0, [])}
    for row, size in zip(costs, sizes):
        new = {}
        for used, (cost, bits) in table.items():
            for b, c in zip(options, row):
                at = used + size // unit * b
                if at <= room and (at not in new or cost + float(c) > new[at][0]):
                    new[at] = (cost + float(c), bits + [b])
        table = new
    return max(table.values())[1]
