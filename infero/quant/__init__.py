"""Making weights and activations smaller: chapters 4 and 5.

    affine.py        scales, zero points, rounding, granularity
    ranges.py        which range a scale should cover
    int8.py          eight-bit weights and activations (W8A8)
    outliers.py      what to do about a few huge activations (SmoothQuant, LLM.int8())
    floats.py        eight- and four-bit floating point, NF4 and MX blocks
    codes.py         a quantized matrix before it is packed
    fold.py          moving a factor from a matrix into what stands before it
    simulate.py      a rounding tried out on a model before there is a kernel for it
    calibration.py   what a model's matrices see on a text
    gptq.py          rounding that makes up for its own error
    awq.py           scaling the channels that matter before rounding
    qat.py           training through the rounding
    sensitivity.py   which matrices may have how many bits
    methods.py       every method behind one interface
    quantizer.py     a model through any of them, layer by layer
    manifest.py      the folder a quantized model is kept in
    folder.py        beginning, going on with and finishing such a folder
"""
