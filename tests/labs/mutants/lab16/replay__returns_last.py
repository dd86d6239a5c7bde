# mutant: infero.tape.replay
# story: the last call's fresh result is returned
#| exercise: infero.tape.replay
def replay(tape: Tape, *inputs: Tensor) -> Tensor:
    for place, new in zip(tape.inputs, inputs):
        if new.shape != place.shape:
            raise ValueError("another shape")
        place.copy_(new)
    for call in tape.calls:
        fresh = run(call)
    return fresh[0]
