# mutant: infero.tape.replay
# diagnosis: returns-copy
# story: returns a clone
#| exercise: infero.tape.replay
def replay(tape: Tape, *inputs: Tensor) -> Tensor:
    for place, new in zip(tape.inputs, inputs):
        if new.shape != place.shape:
            raise ValueError("another shape")
        place.copy_(new)
    for call in tape.calls:
        for place, fresh in zip(call.results, run(call)):
            place.copy_(fresh)
    return tape.outputs.clone()
