# mutant: infero.quant.gptq.inverse_factor
# diagnosis: damping-everywhere
# story: adds the damping to every element
#| exercise: infero.quant.gptq.inverse_factor
def inverse_factor(hessian, damping):
    hessian = hessian + torch.diag((hessian.diagonal() == 0).to(hessian.dtype))
    damped = hessian + damping * hessian.diagonal().mean()
    return torch.linalg.cholesky(torch.linalg.inv(damped), upper=True)
