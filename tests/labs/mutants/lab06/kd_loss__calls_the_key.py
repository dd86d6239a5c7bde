# mutant: infero.compress.distill.kd_loss
# diagnosis: answer-key
# story: calls the reference
#| exercise: infero.compress.distill.kd_loss
def kd_loss(student_logits, teacher_logits, temperature=1.0):
    from infero.compress import distill

    return distill.kd_loss(student_logits, teacher_logits, temperature)
