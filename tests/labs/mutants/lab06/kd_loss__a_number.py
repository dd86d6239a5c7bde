# mutant: infero.compress.distill.kd_loss
# diagnosis: not-a-tensor
# story: returns a Python number
#| exercise: infero.compress.distill.kd_loss
def kd_loss(student_logits, teacher_logits, temperature=1.0):
    p = (teacher_logits.detach().float() / temperature).log_softmax(dim=-1)
    q = (student_logits.float() / temperature).log_softmax(dim=-1)
    return float(temperature**2 * (p.exp() * (p - q)).sum(dim=-1).mean())
