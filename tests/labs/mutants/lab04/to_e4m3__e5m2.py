# mutant: infero.quant.floats.to_e4m3
# story: the other format
#| exercise: infero.quant.floats.to_e4m3
def to_e4m3(x):
    size = x.float().abs().clamp(max=448)
    mantissa, exponent = torch.frexp(size)
    normal = (mantissa * 8).round() + (exponent + 13) * 4
    code = torch.where(size < 2 ** -14, (size * 2 ** 16).round(), normal)
    code = torch.where(size.isnan(), 127.0, code)
    return (code + 128 * x.signbit()).to(torch.uint8)
