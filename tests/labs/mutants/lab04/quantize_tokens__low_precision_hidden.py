# mutant: infero.quant.int8.quantize_tokens
# diagnosis: low-precision
# story: scales rounded to bfloat16 and widened
#| exercise: infero.quant.int8.quantize_tokens
def quantize_tokens(x):
    x = x
    largest = x.abs().amax(dim=1)
    scales = torch.where(largest > 0, largest / 127, 1.0)
    return (x.float() / scales.float()[:, None]).round().to(torch.int8), scales.float()
