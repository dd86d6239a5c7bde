# mutant: infero.quant.floats.to_e4m3
# story: does not saturate
#| exercise: infero.quant.floats.to_e4m3
def to_e4m3(x):
    size = x.float().abs()
    mantissa, exponent = torch.frexp(size)
    normal = (mantissa * 16).round() + (exponent + 5) * 8
    code = torch.where(size < 2 ** -6, (size * 2 ** 9).round(), normal)
    code = torch.where(size.isnan(), 127.0, code)
    return (code + 128 * x.signbit()).long().to(torch.uint8)
