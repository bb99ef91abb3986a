"""`python -m service` is the command `emqx-gpt`."""

from service.cli import main

if __name__ == "__main__":
    main()
