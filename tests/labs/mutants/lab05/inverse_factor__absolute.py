# mutant: infero.quant.gptq.inverse_factor
# diagnosis: absolute-damping
# story: adds the damping as it is
#| exercise: infero.quant.gptq.inverse_factor
def inverse_factor(hessian, damping):
    hessian = hessian + torch.diag((hessian.diagonal() == 0).to(hessian.dtype))
    damped = hessian + damping * torch.eye(len(hessian), dtype=hessian.dtype)
    return torch.linalg.cholesky(torch.linalg.inv(damped), upper=True)
