"""What the data is: corpus grammars, rows, splits, decoding, faces, prepared clips and a synthetic corpus."""
