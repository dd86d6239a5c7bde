# mutant: infero.cache.kv.write
# diagnosis: new-tensor
# story: appends as a growing cache would
#| exercise: infero.cache.kv.write
def write(cache, layer, slots, k, v):
    cache.k = torch.cat((cache.k, k.expand(cache.k.shape[0], *k.shape)), dim=1)
    cache.v = torch.cat((cache.v, v.expand(cache.v.shape[0], *v.shape)), dim=1)
