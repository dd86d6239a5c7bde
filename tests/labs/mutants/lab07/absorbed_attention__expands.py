# mutant: infero.mla.absorbed_attention
# diagnosis: expands-the-cache
# story: makes every head's keys and values
#| exercise: infero.mla.absorbed_attention
def absorbed_attention(q, q_rope, latent, k_rope, w_uk, w_uv, scale):
    k = torch.einsum("cr,hdr->chd", latent, w_uk)
    v = torch.einsum("cr,hvr->chv", latent, w_uv)
    scores = torch.einsum("qhd,chd->hqc", q, k) + torch.einsum("qhe,ce->hqc", q_rope, k_rope)
    return torch.einsum("hqc,chv->qhv", causal_softmax(scores * scale), v)
