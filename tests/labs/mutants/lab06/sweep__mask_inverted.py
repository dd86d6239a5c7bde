# mutant: infero.compress.sparsegpt.sweep
# diagnosis: mask-inverted
# story: removes what should stay
#| exercise: infero.compress.sparsegpt.sweep
def sweep(weight, keep, factor):
    w, errors = weight.clone(), torch.zeros_like(weight)
    for j in range(w.shape[1]):
        removed = torch.where(keep[:, j], w[:, j], 0.0)
        errors[:, j] = removed / factor[j, j]
        w[:, j:] -= errors[:, j, None] * factor[j, j:]
    return w * ~keep, errors
