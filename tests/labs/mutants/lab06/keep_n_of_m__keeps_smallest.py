# mutant: infero.compress.magnitude.keep_n_of_m
# diagnosis: keeps-smallest
# story: sorts ascending
#| exercise: infero.compress.magnitude.keep_n_of_m
def keep_n_of_m(scores, n, m):
    groups = scores.reshape(-1, m)
    order = groups.argsort(dim=1, stable=True)
    keep = torch.zeros_like(groups, dtype=torch.bool)
    keep.scatter_(1, order[:, :n], True)
    return keep.view(scores.shape)
