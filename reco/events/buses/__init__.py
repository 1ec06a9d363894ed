"""One module a bus; each keeps the contract of reco.events.bus."""
