"""Who gets what: assignment and the statistics that judge it."""
