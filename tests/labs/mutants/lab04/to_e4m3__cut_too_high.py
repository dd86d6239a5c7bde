# mutant: infero.quant.floats.to_e4m3
# story: subnormal below 2 ** -5
#| exercise: infero.quant.floats.to_e4m3
def to_e4m3(x):
    size = x.float().abs().clamp(max=448)
    mantissa, exponent = torch.frexp(size)
    normal = (mantissa * 16).round() + (exponent + 5) * 8
    code = torch.where(size < 2 ** -5, (size * 2 ** 8).round(), normal)
    code = torch.where(size.isnan(), 127.0, code)
    return (code + 128 * x.signbit()).to(torch.uint8)
