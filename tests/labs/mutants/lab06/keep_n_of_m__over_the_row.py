# mutant: infero.compress.magnitude.keep_n_of_m
# diagnosis: over-row
# story: chooses n / m of the row
#| exercise: infero.compress.magnitude.keep_n_of_m
def keep_n_of_m(scores, n, m):
    kept = scores.shape[1] * n // m
    order = scores.argsort(dim=1, descending=True, stable=True)
    keep = torch.zeros_like(scores, dtype=torch.bool)
    return keep.scatter(1, order[:, :kept], True)
