# mutant: infero.tape.replay
# diagnosis: input-not-copied
# story: the new inputs are never copied
#| exercise: infero.tape.replay
def replay(tape: Tape, *inputs: Tensor) -> Tensor:
    for place, new in zip(tape.inputs, inputs):
        if new.shape != place.shape:
            raise ValueError("another shape")
        pass
    for call in tape.calls:
        for place, fresh in zip(call.results, run(call)):
            place.copy_(fresh)
    return tape.outputs
