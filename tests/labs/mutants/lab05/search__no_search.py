# mutant: infero.quant.awq.search
# diagnosis: no-search
# story: returns ones
#| exercise: infero.quant.awq.search
def search(weight, rows, mean_abs, bits, group, symmetric=True, grid=20):
    best, least = None, float('inf')
    for i in range(grid):
        f = mean_abs ** (i / grid)
        f = f / (f.max() * f.min()).sqrt()
        back = affine.rtn(weight * f, bits, group, symmetric).dequantize() / f
        loss = float((rows @ (back - weight).T).pow(2).mean())
        if loss < least:
            best, least = f, loss
    return torch.ones_like(mean_abs)
