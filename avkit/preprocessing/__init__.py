"From media files to stored tensors: decoding, audio, faces, tracks"
