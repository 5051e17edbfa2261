"""`python -m unnoise` is `unnoise`: for launchers that start modules, such as torchrun."""

from unnoise.cli import main

if __name__ == "__main__":
    main()
