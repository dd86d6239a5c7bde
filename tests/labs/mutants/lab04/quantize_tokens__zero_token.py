# mutant: infero.quant.int8.quantize_tokens
# diagnosis: zero-token
# story: a token of zeros divides by 0
#| exercise: infero.quant.int8.quantize_tokens
def quantize_tokens(x):
    x = x.float()
    largest = x.abs().amax(dim=1)
    scales = largest / 127
    return (x / scales[:, None]).round().to(torch.int8), scales
