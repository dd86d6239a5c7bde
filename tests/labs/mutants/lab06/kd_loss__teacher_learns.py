# mutant: infero.compress.distill.kd_loss
# diagnosis: teacher-learns
# story: does not detach the teacher
#| exercise: infero.compress.distill.kd_loss
def kd_loss(student_logits, teacher_logits, temperature=1.0):
    p = (teacher_logits.float() / temperature).log_softmax(dim=-1)
    q = (student_logits.float() / temperature).log_softmax(dim=-1)
    return temperature**2 * (p.exp() * (p - q)).sum(dim=-1).mean()
