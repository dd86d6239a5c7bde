# mutant: infero.compress.distill.kd_loss
# diagnosis: wrong-axis
# story: softmax over the tokens
#| exercise: infero.compress.distill.kd_loss
def kd_loss(student_logits, teacher_logits, temperature=1.0):
    p = (teacher_logits.detach().float() / temperature).log_softmax(dim=0)
    q = (student_logits.float() / temperature).log_softmax(dim=0)
    return temperature**2 * (p.exp() * (p - q)).sum(dim=-1).mean()
