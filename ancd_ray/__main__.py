"""`python -m ancd_ray`: the same as the console script, for where only the package has travelled."""

from ancd_ray.cli.main import main

if __name__ == "__main__":
    main()
