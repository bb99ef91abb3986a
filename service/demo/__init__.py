"""What `emqx-gpt demo` needs and a real installation has already: a broker and a model."""
