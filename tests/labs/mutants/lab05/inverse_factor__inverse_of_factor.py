# mutant: infero.quant.gptq.inverse_factor
# diagnosis: inverse-of-factor
# story: inverts the factor: U U^T instead of U^T U
#| exercise: infero.quant.gptq.inverse_factor
def inverse_factor(hessian, damping):
    hessian = hessian + torch.diag((hessian.diagonal() == 0).to(hessian.dtype))
    damped = hessian + damping * hessian.diagonal().mean() * torch.eye(len(hessian), dtype=hessian.dtype)
    return torch.linalg.inv(torch.linalg.cholesky(damped)).T.contiguous()
