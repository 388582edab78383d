"""What several papers need, one idea per file.

    masking        padded positions and labels of -100 do not count
    layer_maps     which student layer learns from which teacher layer
    projections    maps between two widths
    probes         one forward pass: hidden states, attention scores, queries, keys, values, logits
    students       shapes by name, sizes, new students; starts and narrowing: what they take over from the teacher
    batches        text as tensors; a batch depends on (seed, step) only
    training       the loop, resumable; parts: the same on several processes or in several parts
    measures       what is counted; seeds: over several runs; clock: times as ratios
    files          written whole or not at all
"""
