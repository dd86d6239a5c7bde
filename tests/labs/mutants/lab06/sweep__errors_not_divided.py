# mutant: infero.compress.sparsegpt.sweep
# diagnosis: errors-not-divided
# story: returns what was removed as errors
#| exercise: infero.compress.sparsegpt.sweep
def sweep(weight, keep, factor):
    w, errors = weight.clone(), torch.zeros_like(weight)
    for j in range(w.shape[1]):
        removed = torch.where(keep[:, j], 0.0, w[:, j])
        errors[:, j] = removed
        w[:, j:] -= errors[:, j, None] / factor[j, j] * factor[j, j:]
    return w * keep, errors
