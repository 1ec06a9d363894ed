"""`python -m reco`: the same as the command `reco`."""

from reco.cli import main

main()
