# mutant: infero.quant.gptq.inverse_factor
# diagnosis: dead-forgotten
# story: forgets the inputs that were always 0
#| exercise: infero.quant.gptq.inverse_factor
def inverse_factor(hessian, damping):
    damped = hessian + damping * hessian.diagonal().mean() * torch.eye(len(hessian), dtype=hessian.dtype)
    return torch.linalg.cholesky(torch.linalg.inv(damped), upper=True)
