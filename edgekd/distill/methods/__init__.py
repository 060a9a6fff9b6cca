"""One KD method a file; `_base.py` is the contract they share (design: the teacher is a source of targets)."""
