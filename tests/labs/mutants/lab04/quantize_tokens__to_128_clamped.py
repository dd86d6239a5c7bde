# mutant: infero.quant.int8.quantize_tokens
# diagnosis: scales-to-128
# story: scales to 128 and clamps
#| exercise: infero.quant.int8.quantize_tokens
def quantize_tokens(x):
    x = x.float()
    largest = x.abs().amax(dim=1)
    scales = torch.where(largest > 0, largest / 128, 1.0)
    return (x / scales[:, None]).round().clamp(-128, 127).to(torch.int8), scales
