# mutant: infero.tape.replay
# diagnosis: wrong-values
# story: an operation has one result
#| exercise: infero.tape.replay
def replay(tape: Tape, *inputs: Tensor) -> Tensor:
    for place, new in zip(tape.inputs, inputs):
        if new.shape != place.shape:
            raise ValueError("another shape")
        place.copy_(new)
    for call in tape.calls:
        call.results[0].copy_(run(call)[0])
    return tape.outputs
