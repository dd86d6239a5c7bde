# mutant: infero.quant.floats.to_e4m3
# story: torch's cast and a wrong view
#| exercise: infero.quant.floats.to_e4m3
def to_e4m3(x):
    return x.to(torch.float8_e5m2).view(torch.uint8)
