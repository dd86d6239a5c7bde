# mutant: infero.quant.floats.to_e4m3
# story: takes the bits of float32 as they are
#| exercise: infero.quant.floats.to_e4m3
def to_e4m3(x):
    bits = x.float().abs().clamp(max=448).view(torch.int32)
    code = ((bits >> 20) - (120 << 3)).clamp(min=0)
    return (code + 128 * x.signbit()).to(torch.uint8)
