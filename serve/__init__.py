"""Online, on Ray Serve: the graph, the HTTP gateway, campaign runs and sender actors."""
