"""The schema over time. `service.store.migrate` runs what a database still lacks."""
