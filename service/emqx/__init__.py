"""The broker's half: rendered from the flows, compared, applied, removed, examined."""
