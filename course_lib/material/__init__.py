"""What the course works on: real text and real weights, brought by pip or a hub and checked against a hash.

    assets          outside files: where they come from, their hash, their licence (data/assets.toml)
    data            `load_data`: text with fixed, leak-free splits; sources: the raw files, parsed
    teachers        `load_teacher`: the fine-tuned teachers and how they are made
    kinds           what kind of model a folder holds; a model is loaded completely or refused
    word_vectors    GloVe
    japanese        a small Japanese data set
"""
