# mutant: infero.quant.gptq.inverse_factor
# diagnosis: dead-late
# story: takes the mean before it puts the ones in
#| exercise: infero.quant.gptq.inverse_factor
def inverse_factor(hessian, damping):
    mean = hessian.diagonal().mean()
    hessian = hessian + torch.diag((hessian.diagonal() == 0).to(hessian.dtype))
    damped = hessian + damping * mean * torch.eye(len(hessian), dtype=hessian.dtype)
    return torch.linalg.cholesky(torch.linalg.inv(damped), upper=True)
