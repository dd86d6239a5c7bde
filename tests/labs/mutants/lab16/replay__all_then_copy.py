# mutant: infero.tape.replay
# story: runs all calls before it copies any result
#| exercise: infero.tape.replay
def replay(tape: Tape, *inputs: Tensor) -> Tensor:
    for place, new in zip(tape.inputs, inputs):
        if new.shape != place.shape:
            raise ValueError("another shape")
        place.copy_(new)
    found = [run(call) for call in tape.calls]
    for call, fresh in zip(tape.calls, found):
        for place, new in zip(call.results, fresh):
            place.copy_(new)
    return tape.outputs
