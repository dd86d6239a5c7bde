# mutant: infero.compress.distill.kd_loss
# diagnosis: cross-entropy
# story: leaves the teacher's entropy in
#| exercise: infero.compress.distill.kd_loss
def kd_loss(student_logits, teacher_logits, temperature=1.0):
    p = (teacher_logits.detach().float() / temperature).log_softmax(dim=-1)
    q = (student_logits.float() / temperature).log_softmax(dim=-1)
    return temperature**2 * (-p.exp() * q).sum(dim=-1).mean()
