# mutant: infero.mla.absorbed_attention
# diagnosis: no-mask
# story: plain softmax
#| exercise: infero.mla.absorbed_attention
def absorbed_attention(q, q_rope, latent, k_rope, w_uk, w_uv, scale):
    q_latent = torch.einsum("qhd,hdr->qhr", q, w_uk)
    scores = torch.einsum("qhr,cr->hqc", q_latent, latent)
    scores = scores + torch.einsum("qhe,ce->hqc", q_rope, k_rope)
    weights = (scores * scale).softmax(-1)
    mixed = torch.einsum("hqc,cr->qhr", weights, latent)
    return torch.einsum("qhr,hvr->qhv", mixed, w_uv)
