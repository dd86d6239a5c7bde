# mutant: infero.tape.replay
# story: the calls in reverse
#| exercise: infero.tape.replay
def replay(tape: Tape, *inputs: Tensor) -> Tensor:
    for place, new in zip(tape.inputs, inputs):
        if new.shape != place.shape:
            raise ValueError("another shape")
        place.copy_(new)
    for call in reversed(tape.calls):
        for place, fresh in zip(call.results, run(call)):
            place.copy_(fresh)
    return tape.outputs
