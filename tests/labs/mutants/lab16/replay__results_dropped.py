# mutant: infero.tape.replay
# diagnosis: results-not-copied
# story: runs the calls and drops what they give
#| exercise: infero.tape.replay
def replay(tape: Tape, *inputs: Tensor) -> Tensor:
    for place, new in zip(tape.inputs, inputs):
        if new.shape != place.shape:
            raise ValueError("another shape")
        place.copy_(new)
    for call in tape.calls:
        run(call)
    return tape.outputs
