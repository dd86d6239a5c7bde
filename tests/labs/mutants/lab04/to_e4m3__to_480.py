# mutant: infero.quant.floats.to_e4m3
# diagnosis: beyond-448
# story: becomes NaN beyond 464
#| exercise: infero.quant.floats.to_e4m3
def to_e4m3(x):
    size = x.float().abs()
    mantissa, exponent = torch.frexp(size)
    normal = (mantissa * 16).round() + (exponent + 5) * 8
    code = torch.where(size < 2 ** -6, (size * 2 ** 9).round(), normal)
    code = torch.where(size <= 464, code, 127.0)
    return (code + 128 * x.signbit()).to(torch.uint8)
