# mutant: infero.quant.gptq.quantize_block
# diagnosis: twice
# story: divides twice by the diagonal
#| exercise: infero.quant.gptq.quantize_block
def quantize_block(weight, factor, scale, zero, bits):
    left, errors = weight.clone(), torch.zeros_like(weight)
    values = torch.zeros(weight.shape, dtype=torch.uint8)
    for j in range(weight.shape[1]):
        value = affine.quantize(left[:, j], scale[:, j], zero[:, j], bits)
        rounded = affine.dequantize(value, scale[:, j], zero[:, j])
        values[:, j] = value
        errors[:, j] = (left[:, j] - rounded) / factor[j, j] ** 2
        left[:, j + 1 :] -= errors[:, j, None] * factor[j, j + 1 :]
    return values, errors
