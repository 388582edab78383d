"""`python -m course_lib.experiments`: see `measuring.py`."""

import sys

from course_lib.experiments.measuring import main

if __name__ == "__main__":
    main(sys.argv[1:])
