# mutant: infero.compress.magnitude.keep_n_of_m
# diagnosis: ties-all
# story: keeps whatever reaches the n-th largest
#| exercise: infero.compress.magnitude.keep_n_of_m
def keep_n_of_m(scores, n, m):
    groups = scores.reshape(-1, m)
    limit = groups.topk(n, dim=1).values[:, -1:]
    return (groups >= limit).view(scores.shape)
