# mutant: infero.quant.int8.quantize_tokens
# diagnosis: half-up
# story: adds a half and floors
#| exercise: infero.quant.int8.quantize_tokens
def quantize_tokens(x):
    x = x.float()
    largest = x.abs().amax(dim=1)
    scales = torch.where(largest > 0, largest / 127, 1.0)
    return (x / scales[:, None] + 0.5).floor().to(torch.int8), scales
