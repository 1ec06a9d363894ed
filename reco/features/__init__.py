"""What we know: one definition of every feature, for training and for serving."""
