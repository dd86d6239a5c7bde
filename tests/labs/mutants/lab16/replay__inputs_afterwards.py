# mutant: infero.tape.replay
# diagnosis: results-not-copied
# story: copies the inputs after the calls
#| exercise: infero.tape.replay
def replay(tape: Tape, *inputs: Tensor) -> Tensor:
    for place, new in zip(tape.inputs, inputs):
        if new.shape != place.shape:
            raise ValueError("another shape")
    for call in tape.calls:
        for place, fresh in zip(call.results, run(call)):
            place.copy_(fresh)
    for place, new in zip(tape.inputs, inputs):
        place.copy_(new)
    return tape.outputs
