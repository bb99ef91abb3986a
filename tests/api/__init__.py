"""The API for operators: who may call, what it shows and does."""
