"""What is allowed: caps, blocklists, diversity, and the ladder that never leaves a mail empty."""
