# mutant: infero.quant.int8.quantize_tokens
# diagnosis: no-abs
# story: the largest number, and a clamp
#| exercise: infero.quant.int8.quantize_tokens
def quantize_tokens(x):
    x = x.float()
    largest = x.amax(dim=1)
    scales = torch.where(largest > 0, largest / 127, 1.0)
    return (x / scales[:, None]).round().clamp(-127, 127).to(torch.int8), scales
