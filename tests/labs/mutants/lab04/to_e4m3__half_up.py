# mutant: infero.quant.floats.to_e4m3
# diagnosis: half-away
# story: ties go up
#| exercise: infero.quant.floats.to_e4m3
def to_e4m3(x):
    size = x.float().abs().clamp(max=448)
    mantissa, exponent = torch.frexp(size)
    normal = (mantissa * 16 + 0.5).floor() + (exponent + 5) * 8
    code = torch.where(size < 2 ** -6, (size * 2 ** 9 + 0.5).floor(), normal)
    code = torch.where(size.isnan(), 127.0, code)
    return (code + 128 * x.signbit()).to(torch.uint8)
