# mutant: infero.cache.contiguous.next_batch
# story: refuses a request that just fits
#| exercise: infero.cache.contiguous.next_batch
def next_batch(cache, starts, query_lens):
    device, size = cache.k.device, cache.block_size
    ends = [s + n for s, n in zip(starts, query_lens)]
    if max(ends) >= size:
        raise PromptError(f"{max(ends)} tokens do not fit into {size} slots")
    positions = torch.cat([torch.arange(s, e) for s, e in zip(starts, ends)])
    slots = torch.cat([r * size + torch.arange(s, e) for r, (s, e) in enumerate(zip(starts, ends))])
    tables = torch.arange(len(starts))[:, None]
    return Batch(positions, slots, tables, size, query_lens, ends)
