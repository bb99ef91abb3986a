"""An OpenAI-compatible model without network or key."""
