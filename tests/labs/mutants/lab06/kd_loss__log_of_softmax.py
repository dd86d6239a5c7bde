# mutant: infero.compress.distill.kd_loss
# diagnosis: underflow
# story: the log of a softmax
#| exercise: infero.compress.distill.kd_loss
def kd_loss(student_logits, teacher_logits, temperature=1.0):
    p = (teacher_logits.detach().float() / temperature).softmax(dim=-1)
    q = (student_logits.float() / temperature).softmax(dim=-1)
    return temperature**2 * (p * (p.log() - q.log())).sum(dim=-1).mean()
