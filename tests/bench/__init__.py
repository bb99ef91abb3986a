"""How fast the service is, beside what people use in its place: `make bench`."""
