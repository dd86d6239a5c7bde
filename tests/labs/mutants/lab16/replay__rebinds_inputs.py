# mutant: infero.tape.replay
# diagnosis: rebinds-input
# story: the list of inputs gets new tensors
#| exercise: infero.tape.replay
def replay(tape: Tape, *inputs: Tensor) -> Tensor:
    for i, new in enumerate(inputs):
        if new.shape != tape.inputs[i].shape:
            raise ValueError("another shape")
        tape.inputs[i] = new.clone()
    for call in tape.calls:
        for place, fresh in zip(call.results, run(call)):
            place.copy_(fresh)
    return tape.outputs
