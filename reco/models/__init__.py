"""What we believe: towers, ranker, simple recommenders, and the artifact that carries them."""
