# mutant: infero.quant.gptq.inverse_factor
# diagnosis: no-damping
# story: leaves out the damping
#| exercise: infero.quant.gptq.inverse_factor
def inverse_factor(hessian, damping):
    hessian = hessian + torch.diag((hessian.diagonal() == 0).to(hessian.dtype))
    return torch.linalg.cholesky(torch.linalg.inv(hessian + 0 * damping), upper=True)
