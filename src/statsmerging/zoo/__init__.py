"""The zoo: backbones, heads, checkpoints in and out, and the experts that are merged."""
