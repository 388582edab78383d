"""Solutions and typical mistakes of every exercise, and the numbers they must give. Not part of the wheel.

Each chapter has one file with

    cases(seed)  inputs per exercise: what it is about, the stage, the arguments, whose gradient is wanted
    EXPECTED     the right answer, computed in another way than the solution (float64 NumPy, by the formula)
    GRADIENTS    its gradient, by the formula
    SOLUTIONS    what a good learner writes
    MISTAKES     what a learner in a hurry writes, by the name of the mistake
"""
