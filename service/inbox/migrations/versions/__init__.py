"""One file per change, named NUMBER_WORD.py; never edited once it was released."""
