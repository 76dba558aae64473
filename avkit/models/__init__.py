"Masks, weights, backbones, encoders, fusion blocks: tensors in, tensors out"
