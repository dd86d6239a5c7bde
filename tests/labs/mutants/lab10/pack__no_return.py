# mutant: infero.runner.pack
# diagnosis: returns-none
# story: forgets to return
#| exercise: infero.runner.pack
def pack(spans: Sequence[Span], block_size: int) -> Ragged:
    ragged = Ragged([], [], [], [], [], [])
    for span in spans:
        ragged.ids += span.tokens
