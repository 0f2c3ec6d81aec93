"""Training: one LoRA round over the pairs that people made."""
