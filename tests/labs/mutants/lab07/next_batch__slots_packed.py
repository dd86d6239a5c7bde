# mutant: infero.cache.contiguous.next_batch
# diagnosis: slots-packed
# story: lays the step's tokens into the first slots
#| exercise: infero.cache.contiguous.next_batch
def next_batch(cache, starts, query_lens):
    device, size = cache.k.device, cache.block_size
    ends = [s + n for s, n in zip(starts, query_lens)]
    if max(ends) > size:
        raise PromptError(f"{max(ends)} tokens do not fit into {size} slots")
    positions = torch.cat([torch.arange(s, e) for s, e in zip(starts, ends)])
    slots = torch.arange(sum(query_lens))
    tables = torch.arange(len(starts))[:, None]
    return Batch(positions, slots, tables, size, query_lens, ends)
