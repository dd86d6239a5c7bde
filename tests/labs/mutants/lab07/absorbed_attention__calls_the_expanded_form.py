# mutant: infero.mla.absorbed_attention
# diagnosis: expands-the-cache
# story: calls the expanded form
#| exercise: infero.mla.absorbed_attention
def absorbed_attention(q, q_rope, latent, k_rope, w_uk, w_uv, scale):
    return expanded_attention(q, q_rope, latent, k_rope, w_uk, w_uv, scale)
