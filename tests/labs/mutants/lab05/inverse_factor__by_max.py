# mutant: infero.quant.gptq.inverse_factor
# diagnosis: damping-by-max
# story: takes the largest diagonal element
#| exercise: infero.quant.gptq.inverse_factor
def inverse_factor(hessian, damping):
    hessian = hessian + torch.diag((hessian.diagonal() == 0).to(hessian.dtype))
    damped = hessian + damping * hessian.diagonal().max() * torch.eye(len(hessian), dtype=hessian.dtype)
    return torch.linalg.cholesky(torch.linalg.inv(damped), upper=True)
