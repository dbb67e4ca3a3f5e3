"""`python -m edgewise VERB`, which is what torchrun starts."""

from edgewise.cli.main import main

if __name__ == "__main__":
    main()
