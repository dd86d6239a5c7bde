# mutant: infero.compress.sparsegpt.sweep
# diagnosis: mutates-input
# story: works on the weight itself
#| exercise: infero.compress.sparsegpt.sweep
def sweep(weight, keep, factor):
    w, errors = weight, torch.zeros_like(weight)
    for j in range(w.shape[1]):
        removed = torch.where(keep[:, j], 0.0, w[:, j])
        errors[:, j] = removed / factor[j, j]
        w[:, j:] -= errors[:, j, None] * factor[j, j:]
    return w * keep, errors
