# mutant: infero.kernels.steps.matmul.pack_nibbles
# diagnosis: answer-key
# story: imports the reference
#| exercise: infero.kernels.steps.matmul.pack_nibbles
def pack_nibbles(values):
    from infero.kernels.steps import matmul

    return matmul.pack_nibbles(values)
