# mutant: infero.kernels.steps.coalescing.sectors
# diagnosis: one-byte-too-far
# story: the last byte is one too far
#| exercise: infero.kernels.steps.coalescing.sectors
def sectors(indexes, element_bytes):
    touched = set()
    for i in indexes:
        touched.update(range(i * element_bytes // 32, (i + 1) * element_bytes // 32 + 1))
    return len(touched)
