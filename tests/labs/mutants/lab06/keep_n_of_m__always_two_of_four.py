# mutant: infero.compress.magnitude.keep_n_of_m
# story: ignores n and m
#| exercise: infero.compress.magnitude.keep_n_of_m
def keep_n_of_m(scores, n, m):
    groups = scores.reshape(-1, 4)
    order = groups.argsort(dim=1, descending=True, stable=True)
    keep = torch.zeros_like(groups, dtype=torch.bool)
    keep.scatter_(1, order[:, :2], True)
    return keep.view(scores.shape)
