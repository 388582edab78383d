"""What `solution()` shows. The grader's sandbox does not have this folder, and a class switches `solution()` off.

One module per chapter: the functions a good learner writes, with the names of the stubs, and `SOLUTIONS` with the
function of each exercise. Nothing here knows the numbers that an answer must give: those are computed in another way.
"""

import os

if os.environ.get("COURSE_SOLUTIONS", "").lower() == "off":
    raise ImportError("The solutions are switched off here (COURSE_SOLUTIONS=off).")
