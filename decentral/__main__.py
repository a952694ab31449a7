"""`python -m decentral` is the command line, as torchrun starts it."""

from decentral.cli.main import run

if __name__ == "__main__":
    run()
