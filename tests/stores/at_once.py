"""moto's server, which answers at once: `python -m tests.stores.at_once -H HOST -p PORT`.

It writes an answer in two packets, and the second one would wait 40 ms for the receipt of the first.
"""

from __future__ import annotations

import sys

from moto.server import main
from werkzeug.serving import WSGIRequestHandler

if __name__ == "__main__":
    WSGIRequestHandler.disable_nagle_algorithm = True
    main(sys.argv[1:])
