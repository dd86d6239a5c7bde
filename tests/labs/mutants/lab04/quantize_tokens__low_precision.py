# mutant: infero.quant.int8.quantize_tokens
# diagnosis: wrong-dtype
# story: scales in bfloat16
#| exercise: infero.quant.int8.quantize_tokens
def quantize_tokens(x):
    x = x
    largest = x.abs().amax(dim=1)
    scales = torch.where(largest > 0, largest / 127, 1.0)
    return (x / scales[:, None]).round().to(torch.int8), scales
