# mutant: infero.compress.distill.kd_loss
# diagnosis: missing-square
# story: forgets the factor
#| exercise: infero.compress.distill.kd_loss
def kd_loss(student_logits, teacher_logits, temperature=1.0):
    p = (teacher_logits.detach().float() / temperature).log_softmax(dim=-1)
    q = (student_logits.float() / temperature).log_softmax(dim=-1)
    return (p.exp() * (p - q)).sum(dim=-1).mean()
