# mutant: infero.quant.gptq.inverse_factor
# diagnosis: wrong-dtype
# story: always computes in float32
#| exercise: infero.quant.gptq.inverse_factor
def inverse_factor(hessian, damping):
    hessian = hessian.float()
    hessian = hessian + torch.diag((hessian.diagonal() == 0).to(hessian.dtype))
    damped = hessian + damping * hessian.diagonal().mean() * torch.eye(len(hessian), dtype=hessian.dtype)
    return torch.linalg.cholesky(torch.linalg.inv(damped), upper=True)
