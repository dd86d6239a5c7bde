# mutant: infero.compress.magnitude.keep_n_of_m
# diagnosis: strided-groups
# story: columns k, k + in/m, ... are a group
#| exercise: infero.compress.magnitude.keep_n_of_m
def keep_n_of_m(scores, n, m):
    rows, inputs = scores.shape
    groups = scores.view(rows, m, inputs // m)
    order = groups.argsort(dim=1, descending=True, stable=True)
    keep = torch.zeros_like(groups, dtype=torch.bool)
    keep.scatter_(1, order[:, :n], True)
    return keep.view(scores.shape)
