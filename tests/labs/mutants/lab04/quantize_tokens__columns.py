# mutant: infero.quant.int8.quantize_tokens
# diagnosis: scale-of-a-column
# story: the largest of each column
#| exercise: infero.quant.int8.quantize_tokens
def quantize_tokens(x):
    x = x.float()
    largest = x.abs().amax(dim=0)
    scales = torch.where(largest > 0, largest / 127, 1.0)
    return (x / scales).round().to(torch.int8), scales
