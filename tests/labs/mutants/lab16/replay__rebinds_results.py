# mutant: infero.tape.replay
# diagnosis: rebinds-result
# story: a call's results get new tensors
#| exercise: infero.tape.replay
def replay(tape: Tape, *inputs: Tensor) -> Tensor:
    for place, new in zip(tape.inputs, inputs):
        if new.shape != place.shape:
            raise ValueError("another shape")
        place.copy_(new)
    for call in tape.calls:
        call.results = run(call)
    return tape.calls[-1].results[0]
