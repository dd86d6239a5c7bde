# mutant: infero.quant.sensitivity.choose
# diagnosis: unweighted
# story: counts every matrix alike
#| exercise: infero.quant.sensitivity.choose
def choose(costs, sizes, options, budget_bits):
    import math
    sizes, unit = [1] * len(sizes), 1
    room = int(budget_bits * len(sizes))
    table = {0: (0.0, [])}
    for row, size in zip(costs, sizes):
        new = {}
        for used, (cost, bits) in table.items():
            for b, c in zip(options, row):
                at = used + size // unit * b
                if at <= room and (at not in new or cost + float(c) < new[at][0]):
                    new[at] = (cost + float(c), bits + [b])
        table = new
    return min(table.values())[1]
