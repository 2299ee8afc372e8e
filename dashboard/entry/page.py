"""What Streamlit runs.

It lies in a folder of its own because Streamlit puts its script's folder first among the places
where modules are found, and there `requests` or `network` would be pages of ours.
"""

import sys

from dashboard.app import main

main(sys.argv[1:])
