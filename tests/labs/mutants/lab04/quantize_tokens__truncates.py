# mutant: infero.quant.int8.quantize_tokens
# diagnosis: truncates
# story: leaves the rounding to the conversion
#| exercise: infero.quant.int8.quantize_tokens
def quantize_tokens(x):
    x = x.float()
    largest = x.abs().amax(dim=1)
    scales = torch.where(largest > 0, largest / 127, 1.0)
    return (x / scales[:, None]).to(torch.int8), scales
