# mutant: infero.quant.gptq.inverse_factor
# diagnosis: mutates-input
# story: writes the damping into the Hessian
#| exercise: infero.quant.gptq.inverse_factor
def inverse_factor(hessian, damping):
    hessian.diagonal().add_(damping * hessian.diagonal().mean())
    return torch.linalg.cholesky(torch.linalg.inv(hessian), upper=True)
