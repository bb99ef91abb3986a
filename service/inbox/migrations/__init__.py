"""The schema over time. `service.inbox.migrate` runs what a database still lacks."""
