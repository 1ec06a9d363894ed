"""`python -m reco`: the same commands as `reco`, for `ray job submit` and checkouts."""

from reco.cli import main

main()
