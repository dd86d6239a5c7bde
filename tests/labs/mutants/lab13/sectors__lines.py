# mutant: infero.kernels.steps.coalescing.sectors
# diagnosis: counts-lines
# story: counts 128-byte lines
#| exercise: infero.kernels.steps.coalescing.sectors
def sectors(indexes, element_bytes):
    touched = set()
    for i in indexes:
        for b in range(i * element_bytes, (i + 1) * element_bytes):
            touched.add(b // 128)
    return len(touched)
