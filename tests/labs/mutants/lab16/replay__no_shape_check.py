# mutant: infero.tape.replay
# diagnosis: shape-not-checked
# story: copy_ spreads one row over all
#| exercise: infero.tape.replay
def replay(tape: Tape, *inputs: Tensor) -> Tensor:
    for place, new in zip(tape.inputs, inputs):
        place.copy_(new)
    for call in tape.calls:
        for place, fresh in zip(call.results, run(call)):
            place.copy_(fresh)
    return tape.outputs
