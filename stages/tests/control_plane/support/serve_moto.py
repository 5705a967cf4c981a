import os
import sys
import threading

from moto.iam.access_control import IAMRequestBase
from moto.server import main


def end_with_input():
    sys.stdin.buffer.read()
    os._exit(0)


# moto parses a form and encodes it anew, not always as it came, before it checks whether the form was signed.
IAMRequestBase.check_signature = lambda _: None

threading.Thread(target=end_with_input, daemon=True).start()
main(["-H", "127.0.0.1", "-p", "0"])
