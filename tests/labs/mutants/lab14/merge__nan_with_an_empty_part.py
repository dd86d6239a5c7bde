# mutant: infero.kernels.steps.attention.merge
# diagnosis: empty-part
# story: -inf minus -inf where the first part is empty
#| exercise: infero.kernels.steps.attention.merge
import torch.nn.functional as F

def merge(out, lse, more, more_lse):
    share = (lse - more_lse).sigmoid()[:, None]
    return out * share + more * (1 - share), lse - F.logsigmoid(lse - more_lse)
