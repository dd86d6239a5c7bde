# mutant: infero.tape.replay
# diagnosis: shape-not-checked
# story: checks the number of axes only
#| exercise: infero.tape.replay
def replay(tape: Tape, *inputs: Tensor) -> Tensor:
    for place, new in zip(tape.inputs, inputs):
        if new.dim() != place.dim():
            raise ValueError("another shape")
        place.copy_(new)
    for call in tape.calls:
        for place, fresh in zip(call.results, run(call)):
            place.copy_(fresh)
    return tape.outputs
