# mutant: infero.compress.magnitude.keep_n_of_m
# story: a mask of ones and zeros
#| exercise: infero.compress.magnitude.keep_n_of_m
def keep_n_of_m(scores, n, m):
    groups = scores.reshape(-1, m)
    order = groups.argsort(dim=1, descending=True, stable=True)
    keep = torch.zeros_like(groups, dtype=torch.float32)
    keep.scatter_(1, order[:, :n], 1.0)
    return keep.view(scores.shape)
