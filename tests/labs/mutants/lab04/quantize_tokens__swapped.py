# mutant: infero.quant.int8.quantize_tokens
# story: returns scales first
#| exercise: infero.quant.int8.quantize_tokens
def quantize_tokens(x):
    x = x.float()
    largest = x.abs().amax(dim=1)
    scales = torch.where(largest > 0, largest / 127, 1.0)
    return scales, (x / scales[:, None]).round().to(torch.int8)
