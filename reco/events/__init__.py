"""What happened: files and streams become validated rows in the lake."""
