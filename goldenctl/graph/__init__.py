"""What a decoder is made of, below the families: its config, ops, and blocks of ops."""
