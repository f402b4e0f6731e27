"""Run the commands as ``python -m dqecir``."""

from dqecir.cli import main

if __name__ == "__main__":
    main()
