# mutant: infero.mla.absorbed_attention
# diagnosis: own-scale-dim
# story: scales by dim without the rotary features
#| exercise: infero.mla.absorbed_attention
def absorbed_attention(q, q_rope, latent, k_rope, w_uk, w_uv, scale):
    q_latent = torch.einsum("qhd,hdr->qhr", q, w_uk)
    scores = torch.einsum("qhr,cr->hqc", q_latent, latent)
    scores = scores + torch.einsum("qhe,ce->hqc", q_rope, k_rope)
    weights = causal_softmax(scores * q.shape[-1] ** -0.5)
    mixed = torch.einsum("hqc,cr->qhr", weights, latent)
    return torch.einsum("qhr,hvr->qhv", mixed, w_uv)
