# mutant: infero.mla.absorbed_attention
# diagnosis: expands-the-cache
# story: absorbs the keys and expands the values
#| exercise: infero.mla.absorbed_attention
def absorbed_attention(q, q_rope, latent, k_rope, w_uk, w_uv, scale):
    q_latent = torch.einsum("qhd,hdr->qhr", q, w_uk)
    scores = torch.einsum("qhr,cr->hqc", q_latent, latent)
    scores = scores + torch.einsum("qhe,ce->hqc", q_rope, k_rope)
    weights = causal_softmax(scores * scale)
    values = torch.einsum("cr,hvr->chv", latent, w_uv)
    return torch.einsum("hqc,chv->qhv", weights, values)
